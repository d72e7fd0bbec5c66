//! Sends every attack of `tests/attacks` to a gate, and looks at what came of it: what the client
//! was answered, what the log says, and above all what a backend received. `tests/attacks/README.md`
//! says how to read and write one. `ATTACK=name cargo test --test attacks` sends only those whose
//! name contains it.

mod backend;
mod case;
mod gate;

use std::time::Duration;

use backend::Backend;
use case::{Case, Expected, Had};
use gate::{Answered, Gate};

#[test]
fn every_attack_ends_as_its_file_says() {
    let cases = case::all();
    assert!(cases.len() > 300, "{} attacks: some are lost", cases.len());
    let only = std::env::var_os("ATTACK")
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default();
    let backend = Backend::start();
    let gate = Gate::start(&backend);
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| case.name.contains(&only)) {
        if let Err(what) = attack(case, &gate, &backend) {
            wrong.push(format!("{}: {what}", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} attacks did not end as they should:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn attack(case: &Case, gate: &Gate, backend: &Backend) -> Result<(), String> {
    backend.take();
    let bytes = case.bytes(gate);
    let answered = gate.send(&bytes, case);
    let reasons = gate.reasons();
    let mut received = backend.take();
    // What is refused on its way may reach the backend's thread after the client has its answer.
    for _ in 0..100 {
        if compare(case, &answered, &reasons, &received).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        received.extend(backend.take());
    }
    compare(case, &answered, &reasons, &received)
}

fn compare(
    case: &Case,
    answered: &Answered,
    reasons: &[String],
    received: &[u8],
) -> Result<(), String> {
    for (at, expected) in case.expect.iter().enumerate() {
        let Expected::Status { status, reason } = expected else {
            continue;
        };
        let got = answered.statuses.get(at).copied();
        let why = reasons.get(at).map_or("none", String::as_str);
        if got != Some(*status) {
            return Err(format!("expected {status}, got {got:?} (reason {why})"));
        }
        if let Some(reason) = reason
            && why != reason
        {
            return Err(format!("expected the reason {reason}, got {why}"));
        }
    }
    let open_ended = case.expect.contains(&Expected::Any);
    if !open_ended && answered.statuses.len() > case.expect.len() {
        return Err(format!("answered too often: {:?}", answered.statuses));
    }
    if case.closed && !answered.closed {
        return Err("the connection is still open".to_owned());
    }
    for had in &case.backend {
        holds(had, received).map_err(|what| format!("the backend {what}"))?;
    }
    for had in &case.answer {
        holds(had, &answered.bytes).map_err(|what| format!("the client {what}"))?;
    }
    Ok(())
}

fn holds(had: &Had, bytes: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let contains = |part: &[u8]| {
        let (bytes, part) = (bytes.to_ascii_lowercase(), part.to_ascii_lowercase());
        bytes
            .windows(part.len().max(1))
            .any(|window| window == part)
    };
    match had {
        Had::Nothing if !bytes.is_empty() => Err(format!("received {text:?}")),
        Had::Lacks(part) if contains(part) => Err(format!(
            "received {:?}: {text:?}",
            String::from_utf8_lossy(part)
        )),
        Had::Has(part) if !contains(part) => Err(format!(
            "did not receive {:?}: {text:?}",
            String::from_utf8_lossy(part)
        )),
        Had::Requests(number) => {
            let received = backend::requests(bytes).len();
            if received == *number {
                Ok(())
            } else {
                Err(format!("received {received} requests: {text:?}"))
            }
        }
        Had::Field { name, value } => {
            let folded = fold(name);
            let values: Vec<String> = backend::requests(bytes)
                .iter()
                .flat_map(|head| head.split("\r\n").skip(1))
                .filter_map(|line| line.split_once(':'))
                .filter(|(name, _)| fold(name) == folded)
                .map(|(_, value)| value.trim().to_owned())
                .collect();
            if values == [value.clone()] {
                Ok(())
            } else {
                Err(format!("reads {name} as {values:?}: {text:?}"))
            }
        }
        Had::Nothing | Had::Lacks(_) | Had::Has(_) => Ok(()),
    }
}

/// A field's name as CGI, WSGI and PHP see it.
fn fold(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}
