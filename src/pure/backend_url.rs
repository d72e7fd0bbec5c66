//! Where a backend is, as a policy writes it.

use std::path::PathBuf;

use super::target::{Authority, Host};

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendUrl {
    /// `whoami`: the built-in one.
    Whoami,
    /// `http://host:port`.
    Http(Host, u16),
    /// `https://host:port`.
    Https(Host, u16),
    /// `unix:/path`.
    Unix(PathBuf),
}

impl BackendUrl {
    /// Reads a backend.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "whoami" {
            return Ok(Self::Whoami);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(
                    "expected an absolute path after `unix:`, such as `unix:/run/app.sock`"
                        .to_owned(),
                )
            };
        }
        let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => {
                return Err(
                    "expected `http://host:port`, `https://host:port`, `unix:/path` or `whoami`"
                        .to_owned(),
                );
            }
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(
                "expected no path: the backend is asked for the path that the client asked for"
                    .to_owned(),
            );
        }
        let Authority { host, port } = Authority::parse(rest.as_bytes())
            .map_err(|_| "expected a host, with a port where it is not the usual one".to_owned())?;
        Ok(if secure {
            Self::Https(host, port.unwrap_or(443))
        } else {
            Self::Http(host, port.unwrap_or(80))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_read_as_written() {
        let host = |text: &str| Host::parse(text.as_bytes()).unwrap();
        for (text, backend) in [
            ("whoami", BackendUrl::Whoami),
            (
                "http://10.0.0.5:8080",
                BackendUrl::Http(host("10.0.0.5"), 8080),
            ),
            (
                "https://App.internal/",
                BackendUrl::Https(host("app.internal"), 443),
            ),
            ("http://[::1]", BackendUrl::Http(host("[::1]"), 80)),
            ("unix:/run/a.sock", BackendUrl::Unix("/run/a.sock".into())),
        ] {
            assert_eq!(BackendUrl::parse(text), Ok(backend));
        }
        for bad in [
            "",
            "app",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://u@a",
            "unix:a",
            "http://a:0",
        ] {
            assert!(BackendUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
