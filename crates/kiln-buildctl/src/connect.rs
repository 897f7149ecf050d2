//! The daemon that the global flags name.

use crate::cli::Values;
use crate::error::{Call, Error};
use kiln_client::{Address, AddressError, Client, ConnectOptions, Identity, Tls};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Where BuildKit's daemon listens.
pub(crate) const DEFAULT_ADDRESS: &str = "unix:///run/buildkit/buildkitd.sock";
/// Pause between attempts of `--wait`.
const PAUSE: Duration = Duration::from_millis(250);
/// `--timeout 0` waits as good as for ever.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A daemon that is connected to when the first call needs it.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// None if the text names no address that could be dialled; the call says so, as other calls do.
    address: Result<Address, String>,
    options: ConnectOptions,
    wait: bool,
}

/// The address that the flags and the environment name.
pub(crate) fn address_text(values: &Values, env: &dyn Fn(&str) -> Option<String>) -> String {
    let given = values.text("addr").to_owned();
    let named = Some(given).filter(|a| !a.is_empty()).or_else(|| env("BUILDKIT_HOST"));
    named.filter(|a| !a.is_empty()).unwrap_or_else(|| DEFAULT_ADDRESS.into())
}

/// The time of `--timeout`.
pub(crate) fn timeout(values: &Values) -> Duration {
    match u64::try_from(values.int("timeout", 5)) {
        Ok(seconds) if seconds > 0 => Duration::from_secs(seconds).min(FOREVER),
        _ => FOREVER,
    }
}

impl Daemon {
    /// Reads the global flags and checks the certificates.
    pub(crate) fn of(values: &Values, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let tls = tls(values)?;
        if let Some(tls) = &tls {
            tls.check()?;
        }
        let address = match address_text(values, env).parse() {
            Ok(address) => Ok(address),
            Err(AddressError::Form(text)) => {
                let host = text.strip_prefix("tcp://").unwrap_or(&text);
                Err(format!("dial tcp: address {host}: missing port in address"))
            }
            Err(AddressError::Part { why, .. }) => return Err(why.into()),
            Err(AddressError::Scheme { why, .. }) if why.starts_with("npipe") => return Err(why.into()),
            Err(other) => return Err(other.to_string().into()),
        };
        Ok(Self {
            address,
            options: ConnectOptions { tls, timeout: timeout(values) },
            wait: values.is("wait"),
        })
    }

    /// A connection for a call.
    pub(crate) async fn client(&self, call: Call<'_>) -> Result<Client, Error> {
        let address = match &self.address {
            Ok(address) => address,
            Err(why) => return Err(call.unreachable(&format!("transport: Error while dialing: {why}"))),
        };
        let deadline = Instant::now() + self.options.timeout;
        loop {
            match Client::connect_with(address, &self.options).await {
                Ok(client) if !self.wait || client.info().await.is_ok() => return Ok(client),
                Err(error) if !self.wait => return Err(call.not_connected(error)),
                _ if Instant::now() + PAUSE >= deadline => return Err("context deadline exceeded".into()),
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

fn tls(values: &Values) -> Result<Option<Tls>, Error> {
    let server_name = values.text("tlsservername").to_owned();
    let path = |name: &str| Some(values.text(name)).filter(|t| !t.is_empty()).map(PathBuf::from);
    let (ca, cert, key) = (path("tlscacert"), path("tlscert"), path("tlskey"));
    if let Some(dir) = path("tlsdir") {
        if ca.is_some() || cert.is_some() || key.is_some() {
            return Err("cannot specify tlsdir and tlscacert/tlscert/tlskey at the same time".into());
        }
        let files = Tls::from_dir(Path::new(&dir))?;
        return Ok(Some(Tls { server_name, ..files }));
    }
    let identity = (cert.is_some() || key.is_some())
        .then(|| Identity { cert: cert.unwrap_or_default(), key: key.unwrap_or_default() });
    let is_wanted = ca.is_some() || identity.is_some();
    Ok(is_wanted.then(|| Tls { server_name, ca, identity, ..Tls::default() }))
}
