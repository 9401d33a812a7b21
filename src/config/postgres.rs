//! `postgres://…`: where a PostgreSQL store is, and how far the connection to it is trusted.
//!
//! Read as libpq reads it, by the driver; what the driver does not know of TLS (`sslmode=verify-full`,
//! `sslrootcert`) is read here. The address holds a password: it is shown without.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// Where a PostgreSQL database is and how it is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    client: tokio_postgres::Config,
    trust: Trust,
    shown: String,
}

/// Which certificate of the server is believed, where the connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Any: against listening, not against another server in between (`sslmode=prefer`, `require`).
    Any,
    /// One for the host's name from an authority that the system trusts (`sslmode=verify-full`).
    System,
    /// The same from an authority in this file (`sslrootcert=FILE`).
    File(PathBuf),
}

/// How long a connection to a server that does not answer is tried.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A peer that has vanished without a word is given up after about this long.
const SILENT: Duration = Duration::from_secs(10);

const VERIFY: &str = "sslrootcert is for sslmode=verify-full; add that";

impl Postgres {
    /// Whether `url` is meant to be one.
    pub fn is_meant(url: &str) -> bool {
        url.starts_with("postgres://") || url.starts_with("postgresql://")
    }

    /// Reads `postgres://user:password@host:5432/database?sslmode=verify-full`.
    ///
    /// # Errors
    /// What is wrong with it, without repeating any part that may hold a password.
    pub fn parse(url: &str) -> Result<Postgres, String> {
        // Whoever reads it after us takes the first `@` for the end of the password, and what comes
        // after it for the host, which is shown.
        let credentials = url.find('@').map_or(0, |at| at + 1);
        let (address, parameters) = match url[credentials..].find('?') {
            Some(at) => (&url[..credentials + at], &url[credentials + at + 1..]),
            None => (url, ""),
        };
        if address[credentials..].contains('@') {
            return Err("an `@` in the user or password is written %40".to_owned());
        }
        let (mut mode, mut root) = (None, None);
        let mut others = Vec::new();
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => root = Some(value),
                _ => others.push(parameter),
            }
        }
        let (ssl, trust) = match (mode.unwrap_or("prefer"), root) {
            ("verify-full", None | Some("system")) => (SslMode::Require, Trust::System),
            ("verify-full", Some(file)) => (SslMode::Require, Trust::File(decoded(file)?)),
            ("disable" | "prefer" | "require", Some(_)) => return Err(VERIFY.to_owned()),
            ("disable", None) => (SslMode::Disable, Trust::Any),
            ("prefer", None) => (SslMode::Prefer, Trust::Any),
            ("require", None) => (SslMode::Require, Trust::Any),
            ("verify-ca", _) => {
                return Err(
                    "sslmode=verify-ca is not known; verify-full looks at the name as well".to_owned()
                );
            }
            _ => return Err("sslmode is disable, prefer, require or verify-full".to_owned()),
        };
        let mut rest = address.to_owned();
        if !others.is_empty() {
            rest = format!("{rest}?{}", others.join("&"));
        }
        let mut client = tokio_postgres::Config::from_str(&rest).map_err(|error| {
            std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
        })?;
        if client.get_hosts().is_empty() && client.get_hostaddrs().is_empty() {
            return Err("it names no host".to_owned());
        }
        client.ssl_mode(ssl);
        if client.get_hosts().len() > 1 && client.get_target_session_attrs() == TargetSessionAttrs::Any {
            client.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if client.get_application_name().is_none() {
            client.application_name("heal");
        }
        if client.get_connect_timeout().is_none() {
            client.connect_timeout(CONNECT_WITHIN);
        }
        if client.get_tcp_user_timeout().is_none() {
            client.tcp_user_timeout(SILENT);
            client.keepalives_idle(SILENT / 2).keepalives_interval(SILENT / 5).keepalives_retries(3);
        }
        let shown = shown(&client);
        Ok(Postgres { client, trust, shown })
    }

    /// For the driver; it holds the password.
    pub fn client(&self) -> &tokio_postgres::Config {
        &self.client
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }
}

impl std::fmt::Display for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Postgres({})", self.shown)
    }
}

fn shown(client: &tokio_postgres::Config) -> String {
    let ports = client.get_ports();
    let hosts = client.get_hosts().iter().enumerate().map(|(place, host)| {
        let name = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        match ports.get(place).or(ports.first()) {
            Some(port) if *port != 5432 => format!("{name}:{port}"),
            _ => name,
        }
    });
    let mut hosts: Vec<String> = hosts.collect();
    if hosts.is_empty() {
        hosts = client.get_hostaddrs().iter().map(ToString::to_string).collect();
    }
    let user = client.get_user().map_or_else(String::new, |user| format!("{user}@"));
    format!("postgres://{user}{}/{}", hosts.join(","), client.get_dbname().unwrap_or_default())
}

fn decoded(file: &str) -> Result<PathBuf, String> {
    let pair = format!("f={file}");
    let found = url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned());
    // `+` is a letter of file names, and no blank here.
    if file.contains('+') {
        return Err("a `+` in sslrootcert is written %2B".to_owned());
    }
    found
        .filter(|file| !file.is_empty())
        .map(PathBuf::from)
        .ok_or_else(|| "sslrootcert names no file".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_shown_without_its_password() {
        for (url, shown) in [
            ("postgres://heal:s3cret@db.example/heal", "postgres://heal@db.example/heal"),
            ("postgresql://heal:s3cret@db:6432/heal", "postgres://heal@db:6432/heal"),
            ("postgres://heal@a,b:6432/x?password=s3cret", "postgres://heal@a,b:6432/x"),
            ("postgres://heal:s3cr%40et@/heal?host=/run/postgresql", "postgres://heal@/run/postgresql/heal"),
            ("postgres://heal:s3?ret@db/heal", "postgres://heal@db/heal"),
            ("postgres://heal:s3/ret@db/heal?sslmode=require", "postgres://heal@db/heal"),
        ] {
            let read = Postgres::parse(url).unwrap();
            assert_eq!(read.to_string(), shown, "{url}");
            assert_eq!(format!("{read:?}"), format!("Postgres({shown})"));
            assert!(!format!("{:?}", read.client()).contains("s3"), "{url}");
        }
    }

    #[test]
    fn trust_is_what_libpq_means_by_sslmode() {
        let read = |mode: &str| {
            let read = Postgres::parse(&format!("postgres://u:p@db/heal?{mode}")).unwrap();
            (read.client.get_ssl_mode(), read.trust)
        };
        assert_eq!(read(""), (SslMode::Prefer, Trust::Any));
        assert_eq!(read("sslmode=disable"), (SslMode::Disable, Trust::Any));
        assert_eq!(read("connect_timeout=3&sslmode=require"), (SslMode::Require, Trust::Any));
        assert_eq!(read("sslmode=verify-full"), (SslMode::Require, Trust::System));
        let file = Trust::File(PathBuf::from("/etc/my ca.pem"));
        assert_eq!(read("sslmode=verify-full&sslrootcert=/etc/my%20ca.pem"), (SslMode::Require, file));
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_repeating_it() {
        for (url, word) in [
            ("postgres://heal:s3cr@et@db/heal", "%40"),
            ("postgres:///heal", "no host"),
            ("postgres://u:s3cret@db:port/heal", "port"),
            ("postgres://u:s3cret@db/heal?sslmode=verify-ca", "verify-full"),
            ("postgres://u:s3cret@db/heal?sslmode=yes", "verify-full"),
            ("postgres://u:s3cret@db/heal?sslrootcert=/ca.pem", "verify-full"),
            ("postgres://u:s3cret@db/heal?pool=3", "pool"),
        ] {
            let error = Postgres::parse(url).unwrap_err();
            assert!(error.contains(word), "{error}");
            assert!(!error.contains("s3cr") && !error.contains("et@db"), "{error}");
        }
    }
}
