//! Where a Redis or Valkey server is, as the configuration writes it.

use std::path::PathBuf;

use super::target::Authority;

const USUAL_PORT: u16 = 6379;
const EXPECTED: &str = "expected `redis://host:port`, `rediss://host:port` or `unix:/path`";

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisUrl {
    /// `redis://host:port`, or `rediss://` over TLS.
    Tcp {
        /// The host; an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
        /// Whether TLS is spoken.
        tls: bool,
    },
    /// `unix:/path`.
    Unix(PathBuf),
}

impl RedisUrl {
    /// Reads a server. What else such URLs can hold elsewhere, passwords above all, is refused.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err("expected an absolute path after `unix:`".to_owned())
            };
        }
        let (tls, rest) = match (
            text.strip_prefix("rediss://"),
            text.strip_prefix("redis://"),
        ) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(EXPECTED.to_owned()),
        };
        let Authority { host, port } = Authority::parse(rest.as_bytes())
            .map_err(|_| format!("{EXPECTED}, and nothing else in it"))?;
        let host = host.to_string();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        Ok(Self::Tcp {
            host: bare.unwrap_or(&host).to_owned(),
            port: port.unwrap_or(USUAL_PORT),
            tls,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_host_a_port_and_perhaps_tls() {
        let tcp = |host: &str, port, tls| RedisUrl::Tcp {
            host: host.to_owned(),
            port,
            tls,
        };
        for (text, url) in [
            ("redis://db", tcp("db", 6379, false)),
            ("rediss://db.example:7000", tcp("db.example", 7000, true)),
            ("redis://[2001:db8::1]:7", tcp("2001:db8::1", 7, false)),
            ("unix:/run/redis", RedisUrl::Unix("/run/redis".into())),
        ] {
            assert_eq!(RedisUrl::parse(text), Ok(url), "{text}");
        }
    }

    #[test]
    fn what_else_a_url_can_hold_is_refused() {
        for text in [
            "",
            "db:6379",
            "http://db",
            "redis://",
            "redis://:6379",
            "redis://user:secret@db",
            "redis://db/1",
            "rediss://db#insecure",
            "redis://db?protocol=2",
            "redis://db:0x1",
            "unix:redis.sock",
        ] {
            assert!(RedisUrl::parse(text).is_err(), "{text}");
        }
    }
}
