//! `create` and `create --leave`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_go::csv;
use kiln_oci::Platform;

use crate::builder::{Builder, World};
use crate::daemon_config::DaemonConfig;
use crate::docker::DEFAULT_CONTEXT;
use crate::driver::DriverKind;
use crate::instance::{Instance, NeedsRestart, NodeSettings};
use crate::refs::Refs;
use crate::store::Reach;
use crate::{Error, Store};

/// What is to be created, or changed.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// Name of the builder; a random one if empty.
    pub name: String,
    /// Name of its driver; the usual one if empty.
    pub driver: String,
    /// Name of the node; a new one if empty.
    pub node: String,
    /// `--platform`
    pub platforms: Vec<String>,
    /// `--buildkitd-flags`
    pub flags: String,
    /// `--buildkitd-config`
    pub config: Option<PathBuf>,
    /// `--driver-opt`
    pub driver_opts: Vec<String>,
    /// `--use`
    pub select: bool,
    /// `--append`
    pub append: bool,
    /// Address or context; the current one if empty.
    pub endpoint: String,
    /// `$BUILDKIT_HOST`
    pub buildkit_host: String,
}

impl World {
    /// Creates a builder, or changes or adds a node.
    ///
    /// # Errors
    /// The request does not fit what there is, or the driver does not take the settings.
    pub async fn create(
        &self,
        store: &Store,
        request: &CreateRequest,
    ) -> Result<(Builder, NeedsRestart), Error> {
        let name = self.name_for(store, request)?;
        let before = store.get(&name)?;
        if before.is_none() && request.append {
            return Err(Error::Invalid(format!("failed to find instance {:?} for append", request.name)));
        }
        let driver = driver_for(request, before.as_ref());
        check_existing(request, &name, driver, before.as_ref())?;
        let kind = DriverKind::of_instance(driver)?;
        let mut instance = before.clone().unwrap_or_else(|| Instance {
            name: name.clone(),
            driver: kind.name().into(),
            ..Instance::default()
        });
        let settings = self.settings(request, kind)?;
        let endpoint = settings.endpoint.clone();
        let restart = instance.update(&request.node, request.append, settings)?;
        store.save(&instance)?;
        let mut builder = Builder { instance: store.get(&name)?.unwrap_or(instance) };
        if let Err(error) = self.check_nodes(&mut builder).await {
            match &before {
                Some(before) => store.save(before)?,
                None => store.remove(&name)?,
            }
            return Err(error);
        }
        if request.select && !endpoint.is_empty() {
            store.set_current(&self.docker.current_key()?, &name, Reach::default())?;
        }
        Ok((builder, restart))
    }

    async fn check_nodes(&self, builder: &mut Builder) -> Result<(), Error> {
        let nodes = self.nodes_with_facts(builder).await?;
        let broken = nodes.into_iter().find_map(|n| Some((n.node.name.clone(), n.into_error()?)));
        let Some((node, why)) = broken else { return Ok(()) };
        Err(Error::Init { builder: builder.instance.name.clone(), node, why: Box::new(why) })
    }

    fn name_for(&self, store: &Store, request: &CreateRequest) -> Result<String, Error> {
        match request.name.as_str() {
            DEFAULT_CONTEXT => Err(Error::invalid(
                "default is a reserved name and cannot be used to identify builder instance",
            )),
            "" if request.append => Err(Error::invalid("append requires a builder name")),
            "" => store.random_name(),
            name if !request.append && self.docker.contexts()?.iter().any(|c| c == name) => {
                Err(Error::Invalid(format!("instance name {name:?} already exists as context builder")))
            }
            name => crate::names::validate(name),
        }
    }

    fn settings(&self, request: &CreateRequest, kind: DriverKind) -> Result<NodeSettings, Error> {
        let driver_opts = options(&request.driver_opts)?;
        // The usual configuration is for daemons that are booted here.
        let default = || self.config.default_daemon_config().filter(|_| kind == DriverKind::Container);
        let config = request.config.clone().or_else(default);
        let config = config.map(|path| DaemonConfig::load(&path)).transpose()?;
        let flags = daemon_flags(&request.flags, kind, driver_opts.as_ref(), config.as_ref())?;
        let (endpoint, is_endpoint_given) = self.endpoint_for(request, kind)?;
        let mut platforms = Vec::new();
        for text in request.platforms.iter().flat_map(|p| p.split(',')).map(str::trim) {
            let local = text.eq_ignore_ascii_case("local");
            let platform = if local { Ok(Platform::host()) } else { Platform::parse(text) };
            platforms.push(platform.map_err(|e| Error::Invalid(e.to_string()))?.normalize());
        }
        let files = config.map(DaemonConfig::files).transpose()?;
        Ok(NodeSettings { endpoint, is_endpoint_given, platforms, driver_opts, flags, files })
    }

    fn endpoint_for(&self, request: &CreateRequest, kind: DriverKind) -> Result<(String, bool), Error> {
        let given = request.endpoint.as_str();
        match kind {
            DriverKind::Kiln if !given.is_empty() && given != self.own.address.to_string() => {
                Err(Error::Invalid(format!(
                    "kiln driver does not support endpoint args {given:?}: it is the daemon at {}; use driver remote for another",
                    self.own.address
                )))
            }
            DriverKind::Kiln => Ok((self.own.address.to_string(), true)),
            DriverKind::Remote => {
                let host = if given.is_empty() { &request.buildkit_host } else { given };
                if host.is_empty() {
                    return Err(Error::invalid("no remote endpoint provided"));
                }
                let scheme = host.split_once("://").map_or("", |(s, _)| s);
                if !SCHEMES.contains(&scheme) {
                    return Err(Error::Invalid(format!("unrecognized url scheme {scheme}")));
                }
                host.parse::<kiln_client::Address>().map_err(|e| Error::Invalid(e.to_string()))?;
                Ok((host.to_owned(), true))
            }
            DriverKind::Container | DriverKind::Docker if !given.is_empty() => {
                match self.docker.endpoint(given)? {
                    Some(endpoint) if given == DEFAULT_CONTEXT => Ok((endpoint.host, true)),
                    Some(_) => Ok((given.to_owned(), true)),
                    None => Ok((engine_host(given)?, true)),
                }
            }
            DriverKind::Container | DriverKind::Docker => Ok((self.docker.current_key()?, false)),
        }
    }

    /// Takes a node out of a builder.
    ///
    /// # Errors
    /// There is no such builder or node, or it is the last one.
    pub fn leave(&self, store: &Store, name: &str, node: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::invalid("leave requires instance name"));
        }
        if node.is_empty() {
            return Err(Error::invalid("leave requires node name"));
        }
        let missing = || Error::Invalid(format!("failed to find instance {name:?} for leave"));
        let mut instance = store.get(name)?.ok_or_else(missing)?;
        instance.leave(node)?;
        Refs::new(store.config()).remove_node(&instance.name, node)?;
        store.save(&instance)
    }
}

/// Schemes of addresses of daemons.
const SCHEMES: [&str; 6] = ["docker-container", "kube-pod", "npipe", "ssh", "tcp", "unix"];

/// Name of the driver.
fn driver_for<'a>(request: &'a CreateRequest, before: Option<&'a Instance>) -> &'a str {
    let scheme = request.endpoint.split_once("://").map_or("", |(s, _)| s);
    match (request.driver.as_str(), before) {
        ("", Some(before)) => &before.driver,
        ("", None) if request.endpoint.is_empty() && !request.buildkit_host.is_empty() => "remote",
        ("", None) if SCHEMES.contains(&scheme) => "remote",
        ("", None) => "docker-container",
        (name, _) => name,
    }
}

fn check_existing(
    request: &CreateRequest,
    name: &str,
    driver: &str,
    before: Option<&Instance>,
) -> Result<(), Error> {
    let Some(before) = before else { return Ok(()) };
    if request.node.is_empty() && !request.append {
        return Err(Error::Invalid(format!(
            "existing instance for {name:?} but no append mode, specify the node name to make changes for existing instances"
        )));
    }
    if driver != before.driver {
        return Err(Error::Invalid(format!(
            "existing instance for {name:?} but has mismatched driver {:?}",
            before.driver
        )));
    }
    Ok(())
}

/// `--driver-opt`: lists of `key=value`.
fn options(values: &[String]) -> Result<Option<BTreeMap<String, String>>, Error> {
    if values.is_empty() {
        return Ok(None);
    }
    let mut map = BTreeMap::new();
    for value in values {
        for field in
            csv::fields(value).map_err(|e| Error::Invalid(format!("invalid value {value:?}: {e}")))?
        {
            let wrong = || Error::Invalid(format!("invalid value {field:?}, expecting k=v"));
            let (key, value) = field.split_once('=').ok_or_else(wrong)?;
            map.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(Some(map))
}

/// An address of an engine, `unix` and `tcp` being the defaults for paths and hosts.
fn engine_host(text: &str) -> Result<String, Error> {
    match text.split_once("://") {
        Some(("unix" | "tcp" | "ssh" | "npipe" | "fd", rest)) if !rest.is_empty() => Ok(text.to_owned()),
        Some((scheme, _)) => Err(Error::Invalid(format!(
            "failed to parse endpoint {text}: unsupported protocol scheme {scheme:?}"
        ))),
        None if text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            Ok(format!("tcp://{text}"))
        }
        None => Err(Error::Invalid(format!(
            "failed to parse endpoint {text}: neither a Docker context nor an address such as unix:///run/docker.sock"
        ))),
    }
}

/// Flags of the daemon; in a container it may use its host's network, which is the container's, unless the user
/// decided about entitlements.
fn daemon_flags(
    text: &str,
    kind: DriverKind,
    options: Option<&BTreeMap<String, String>>,
    config: Option<&DaemonConfig>,
) -> Result<Option<Vec<String>>, Error> {
    const HOST: &str = "network.host";
    let mut words = crate::words::split(text).ok_or_else(|| {
        Error::invalid("failed to parse buildkit flags: EOF found when expecting closing quote")
    })?;
    let mut allowed = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.strip_prefix("--allow-insecure-entitlement") {
            Some("") => allowed.extend(rest.next().cloned()),
            Some(value) => allowed.extend(value.strip_prefix('=').map(str::to_owned)),
            None => {}
        }
    }
    let on_host = options.and_then(|o| o.get("network")).is_some_and(|n| n == "host");
    let in_config = config.is_some_and(|c| c.allows(HOST));
    let add = kind == DriverKind::Container
        && ((on_host && !allowed.iter().any(|a| a == HOST)) || (allowed.is_empty() && !in_config));
    if add {
        words.push(format!("--allow-insecure-entitlement={HOST}"));
    }
    Ok((!words.is_empty()).then_some(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_daemon_may_use_the_containers_network() {
        let flags = |text: &str, kind| daemon_flags(text, kind, None, None).unwrap().unwrap_or_default();
        let host = "--allow-insecure-entitlement=network.host";
        assert_eq!(flags("--debug", DriverKind::Container), ["--debug", host]);
        assert_eq!(flags("--debug", DriverKind::Remote), ["--debug"]);
        let other = "--allow-insecure-entitlement security.insecure";
        assert_eq!(
            flags(other, DriverKind::Container),
            ["--allow-insecure-entitlement", "security.insecure"]
        );
        let options = [("network".to_owned(), "host".to_owned())].into();
        let flags = daemon_flags(other, DriverKind::Container, Some(&options), None).unwrap().unwrap();
        assert_eq!(flags.last().unwrap(), host);
        assert!(daemon_flags("--a 'b", DriverKind::Container, None, None).is_err());
    }

    #[test]
    fn options_are_lists() {
        let map = options(&["a=1,\"b=2,3\"".into(), "c=".into()]).unwrap().unwrap();
        assert_eq!(map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["a=1", "b=2,3", "c="]);
        assert_eq!(options(&["x".into()]).unwrap_err().to_string(), "invalid value \"x\", expecting k=v");
    }

    #[test]
    fn addresses_of_engines() {
        assert_eq!(engine_host("unix:///x").unwrap(), "unix:///x");
        assert_eq!(engine_host("h:1").unwrap(), "tcp://h:1");
        assert!(engine_host("nothing").is_err() && engine_host("foo://x").is_err());
    }
}
