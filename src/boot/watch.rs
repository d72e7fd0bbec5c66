//! Tells when a file of the configuration changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Editors write, rename and touch; one reload for all of it.
pub const QUIET: Duration = Duration::from_millis(150);

/// Watches until dropped.
#[derive(Debug)]
pub struct Watch {
    _watcher: notify::RecommendedWatcher,
    changes: Receiver<()>,
    /// A change was seen and not yet told: whoever waits may be interrupted.
    seen: bool,
}

/// Watches the TOML files of `directory` and its policies, and the other `files` that these name.
///
/// # Errors
/// What the system can't watch.
pub fn watch(directory: &Path, files: &[PathBuf]) -> notify::Result<Watch> {
    let (tell, changes) = channel(1);
    // Whatever else is written there, a log or the store of sessions, is no reason to reload.
    let named: Vec<PathBuf> = files.iter().map(|file| absolute(file)).collect();
    let parents: Vec<PathBuf> = [
        directory.to_owned(),
        directory.join("policies"),
        directory.join("policies/tests"),
    ]
    .iter()
    .map(|path| absolute(path))
    .collect();
    let ours = {
        let (named, parents) = (named.clone(), parents.clone());
        move |path: &Path| {
            let is_toml = path
                .extension()
                .is_some_and(|extension| extension == "toml");
            let hidden = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let below = path
                .parent()
                .is_some_and(|parent| parents.iter().any(|known| known == parent));
            below && is_toml && !hidden || named.iter().any(|known| known == path)
        }
    };
    let mut watcher = notify::recommended_watcher(move |event| told(&tell, event, &ours))?;
    // A file that is replaced is another file: its directory is what stays.
    let mut places: Vec<&Path> = parents
        .iter()
        .map(PathBuf::as_path)
        .chain(named.iter().filter_map(|file| file.parent()))
        .collect();
    places.sort_unstable();
    places.dedup();
    for place in places.into_iter().filter(|place| place.is_dir()) {
        watcher.watch(place, RecursiveMode::NonRecursive)?;
    }
    Ok(Watch {
        _watcher: watcher,
        changes,
        seen: false,
    })
}

/// As the system names it in events.
fn absolute(path: &Path) -> PathBuf {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let whole = std::fs::canonicalize(path);
    whole.unwrap_or_else(|_| {
        match (
            parent.and_then(|parent| parent.canonicalize().ok()),
            path.file_name(),
        ) {
            (Some(parent), Some(name)) => parent.join(name),
            _ => path.to_owned(),
        }
    })
}

fn told(tell: &Sender<()>, event: notify::Result<notify::Event>, ours: &impl Fn(&Path) -> bool) {
    let relevant = event.is_ok_and(|event| {
        let changes = matches!(
            event.kind,
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)
        );
        changes && event.paths.iter().any(|path| ours(path))
    });
    if relevant {
        // One that waits already tells the same.
        let _ = tell.try_send(());
    }
}

impl Watch {
    /// Waits for a change, and until changes have paused. A wait that is dropped loses no change.
    pub async fn changed(&mut self) {
        if !self.seen && self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.seen = true;
        while let Ok(Some(())) = tokio::time::timeout(QUIET, self.changes.recv()).await {}
        self.seen = false;
    }
}
