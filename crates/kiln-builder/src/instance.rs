//! Builders as they are stored: the JSON of `instances/<name>` (spec daemon-and-cli.md section 4).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kiln_oci::Platform;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;

/// A named builder and its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// How its daemons are reached; empty = a Docker context, which decides itself.
    pub driver: String,
    /// Its daemons.
    #[serde(deserialize_with = "nullable")]
    pub nodes: Vec<Node>,
    /// Nodes come and go by themselves.
    pub dynamic: bool,
    /// It is a Docker context and not in the store.
    #[serde(skip)]
    pub is_context: bool,
    /// When it was last used.
    #[serde(skip)]
    pub last_activity: Option<Timestamp>,
}

/// A daemon of a builder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Address, or name of a Docker context.
    pub endpoint: String,
    /// Platforms that the user assigned to it.
    pub platforms: Option<Vec<Platform>>,
    /// Options of the driver.
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// Flags of the daemon.
    #[serde(rename = "Flags")]
    pub flags: Option<Vec<String>>,
    /// Files of the daemon's configuration, by their path below `/etc/buildkit`.
    #[serde(serialize_with = "write_files", deserialize_with = "read_files")]
    pub files: Option<BTreeMap<String, Vec<u8>>>,
}

impl Node {
    /// Platforms that the user assigned to it.
    pub fn platforms(&self) -> &[Platform] {
        self.platforms.as_deref().unwrap_or_default()
    }

    /// Flags of the daemon.
    pub fn flags(&self) -> &[String] {
        self.flags.as_deref().unwrap_or_default()
    }

    /// Options of the driver.
    pub fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        self.driver_opts.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Files of the daemon's configuration.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().flatten().map(|(k, v)| (k.as_str(), v.as_slice()))
    }
}

/// What `create` says of a node. None = not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// Address, or name of a Docker context.
    pub endpoint: String,
    /// The user named the endpoint.
    pub is_endpoint_given: bool,
    /// Platforms that are assigned to it.
    pub platforms: Vec<Platform>,
    /// Options of the driver.
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// Flags of the daemon.
    pub flags: Option<Vec<String>>,
    /// Files of the daemon's configuration.
    pub files: Option<BTreeMap<String, Vec<u8>>>,
}

/// A node was changed that may be running with its old settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedsRestart(pub bool);

impl Instance {
    /// Changes a node, or adds one.
    ///
    /// # Errors
    /// The node is not there and nothing is to be appended; or two nodes have one endpoint.
    pub fn update(&mut self, node: &str, append: bool, new: NodeSettings) -> Result<NeedsRestart, Error> {
        if self.dynamic {
            return Err(Error::invalid("dynamic node group does not support Update"));
        }
        let found = self.nodes.iter().position(|n| n.name == node);
        let endpoint = new.endpoint.clone();
        let (at, restart) = match found {
            Some(at) => (at, self.nodes[at].change(new)),
            None if !append && !self.nodes.is_empty() => {
                return Err(Error::Invalid(format!("node {node} not found, did you mean to append?")));
            }
            None => {
                let name = if node.is_empty() { self.next_node_name() } else { node.to_owned() };
                let name = crate::names::validate(&name)?;
                self.nodes.push(Node::new(name, new));
                (self.nodes.len() - 1, false)
            }
        };
        self.resolve_duplicates(&endpoint, at)?;
        Ok(NeedsRestart(restart))
    }

    /// Takes a node out.
    ///
    /// # Errors
    /// It is not there, or the last one.
    pub fn leave(&mut self, node: &str) -> Result<(), Error> {
        if self.dynamic {
            return Err(Error::invalid("dynamic node group does not support Leave"));
        }
        let Some(at) = self.nodes.iter().position(|n| n.name == node) else {
            return Err(Error::Invalid(format!("node {node:?} not found for {}", self.name)));
        };
        if self.nodes.len() == 1 {
            return Err(Error::invalid("can not leave last node, do you want to rm instance instead?"));
        }
        self.nodes.remove(at);
        Ok(())
    }

    /// Two nodes cannot have one endpoint; a platform belongs to the node it was assigned to last.
    fn resolve_duplicates(&mut self, endpoint: &str, at: usize) -> Result<(), Error> {
        if self.nodes.iter().filter(|n| n.endpoint == endpoint).count() > 1 {
            return Err(Error::Invalid(format!("invalid duplicate endpoint {endpoint}")));
        }
        let taken: Vec<String> = self.nodes[at].platforms().iter().map(ToString::to_string).collect();
        for (i, node) in self.nodes.iter_mut().enumerate() {
            if let (true, Some(platforms)) = (i != at, &mut node.platforms) {
                platforms.retain(|p| !taken.contains(&p.to_string()));
            }
        }
        Ok(())
    }

    fn next_node_name(&self) -> String {
        let name = |i: usize| format!("{}{i}", self.name);
        let free = |n: &String| self.nodes.iter().all(|node| node.name != *n);
        (0..=self.nodes.len()).map(name).find(free).unwrap_or_else(|| name(self.nodes.len()))
    }
}

impl Node {
    fn new(name: String, new: NodeSettings) -> Self {
        let platforms = (!new.platforms.is_empty()).then_some(new.platforms);
        let NodeSettings { endpoint, driver_opts, flags, files, .. } = new;
        Self { name, endpoint, platforms, driver_opts, flags, files }
    }

    /// Whether the daemon would have to be started anew.
    fn change(&mut self, new: NodeSettings) -> bool {
        let restart =
            new.is_endpoint_given || new.flags.is_some() || new.driver_opts.is_some() || new.files.is_some();
        if new.is_endpoint_given {
            self.endpoint = new.endpoint;
        }
        if !new.platforms.is_empty() {
            self.platforms = Some(new.platforms);
        }
        self.flags = new.flags.or(self.flags.take());
        self.driver_opts = new.driver_opts.or(self.driver_opts.take());
        if let Some(files) = new.files {
            self.files.get_or_insert_default().extend(files);
        }
        restart
    }
}

fn nullable<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Node>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

fn write_files<S: Serializer>(files: &Option<BTreeMap<String, Vec<u8>>>, s: S) -> Result<S::Ok, S::Error> {
    let encode = |f: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, String> {
        f.iter().map(|(k, v)| (k.clone(), STANDARD.encode(v))).collect()
    };
    files.as_ref().map(encode).serialize(s)
}

fn read_files<'de, D: Deserializer<'de>>(d: D) -> Result<Option<BTreeMap<String, Vec<u8>>>, D::Error> {
    let Some(files) = Option::<BTreeMap<String, Option<String>>>::deserialize(d)? else { return Ok(None) };
    let decode = |(name, text): (String, Option<String>)| {
        let data = STANDARD.decode(text.unwrap_or_default()).map_err(serde::de::Error::custom)?;
        Ok((name, data))
    };
    files.into_iter().map(decode).collect::<Result<_, _>>().map(Some)
}
