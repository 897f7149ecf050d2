//! Driver `remote`: a daemon that somebody else runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_client::{Address, Client, ConnectOptions, Identity, Tls};

use tokio::net::{TcpStream, UnixStream};

use super::{Stream, boolean};
use crate::Error;
use crate::instance::Node;

/// How long a daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);

/// A daemon at an address.
#[derive(Clone, Debug)]
pub struct Remote {
    address: Address,
    options: ConnectOptions,
    pub(super) default_load: bool,
}

impl Remote {
    pub(super) fn new(node: &Node) -> Result<Self, Error> {
        if node.files().next().is_some() {
            return Err(Error::invalid("setting config file is not supported for remote driver"));
        }
        if !node.flags().is_empty() {
            return Err(Error::invalid("setting buildkit flags is not supported for remote driver"));
        }
        let address: Address =
            node.endpoint.parse().map_err(|e: kiln_client::AddressError| Error::Invalid(e.to_string()))?;
        let (mut default_load, mut files, mut server_name) = (false, Files::default(), None);
        for (name, value) in node.options() {
            match name {
                "servername" => server_name = Some(value.to_owned()),
                "cacert" => files.ca = Some(absolute(name, value)?),
                "cert" => files.cert = Some(absolute(name, value)?),
                "key" => files.key = Some(absolute(name, value)?),
                "default-load" => default_load = boolean(name, value)?,
                _ => return Err(Error::Invalid(format!("invalid driver option {name} for remote driver"))),
            }
        }
        let tls = files.tls(server_name)?;
        Ok(Self { address, options: ConnectOptions { tls, ..ConnectOptions::default() }, default_load })
    }

    /// Without encryption.
    pub(super) fn at(address: Address) -> Self {
        Self { address, options: ConnectOptions::default(), default_load: false }
    }

    pub(super) async fn client(&self) -> Result<Client, Error> {
        Ok(Client::connect_with(&self.address, &self.options).await?)
    }

    /// Waits until the daemon answers.
    pub(super) async fn wait(&self) -> Result<(), Error> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = async { self.client().await?.workers(&[]).await.map_err(Error::from) };
            match answer.await {
                Ok(_) => return Ok(()),
                Err(e) if tokio::time::Instant::now() + PAUSE > end => return Err(e),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    pub(super) async fn dial(&self) -> Result<Box<dyn Stream>, Error> {
        let failed = |e: std::io::Error| Error::Invalid(format!("connect to {}: {e}", self.address));
        match &self.address {
            _ if self.options.tls.is_some() => Err(Error::NotBuilt {
                what: "dial-stdio behind TLS".into(),
                advice: "use a builder without certificates for it",
            }),
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
            Address::Tcp(host) => Ok(Box::new(TcpStream::connect(host).await.map_err(failed)?)),
            Address::Remote(_) => Err(Error::NotBuilt {
                what: format!("dial-stdio to {}", self.address),
                advice: "use a builder at a unix:// or tcp:// address for it",
            }),
        }
    }
}

#[derive(Default)]
struct Files {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Files {
    fn tls(self, server_name: Option<String>) -> Result<Option<Tls>, Error> {
        if server_name.is_none() && self.ca.is_none() && self.cert.is_none() && self.key.is_none() {
            return Ok(None);
        }
        let missing = [
            ("cacert", self.ca.is_none()),
            ("key", self.cert.is_some() && self.key.is_none()),
            ("cert", self.key.is_some() && self.cert.is_none()),
        ];
        let missing: Vec<&str> = missing.iter().filter(|(_, m)| *m).map(|(n, _)| *n).collect();
        if !missing.is_empty() {
            return Err(Error::Invalid(format!("tls enabled, but missing keys {}", missing.join(", "))));
        }
        let identity = self.cert.zip(self.key).map(|(cert, key)| Identity { cert, key });
        let server_name = server_name.unwrap_or_default();
        Ok(Some(Tls { server_name, ca: self.ca, system_roots: false, identity }))
    }
}

fn absolute(name: &str, value: &str) -> Result<PathBuf, Error> {
    if !Path::new(value).is_absolute() {
        return Err(Error::Invalid(format!("non-absolute path '{value}' provided for {name}")));
    }
    Ok(value.into())
}
