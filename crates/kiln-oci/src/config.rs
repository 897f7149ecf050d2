//! Image configs: OCI's fields, Docker's additions, and whatever else stood there.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kiln_digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Platform;
use crate::nullable::{is_false, is_zero, or_default, time};
use kiln_go::json;

/// The config of an image (OCI image spec, config.md). Fields print in the order of Docker's Go types; unknown ones are
/// kept in `extra` and print last.
///
/// To change single fields of a config made elsewhere without touching the rest, use [`json::RawObject`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made.
    #[serde(default, with = "time", skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Who made it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Where it runs: `architecture`, `os`, `os.version`, `os.features`, `variant` at the top level.
    #[serde(flatten)]
    pub platform: Platform,
    /// How a container is started.
    #[serde(default, deserialize_with = "or_default")]
    pub config: ContainerConfig,
    /// The layers.
    #[serde(default, deserialize_with = "or_default")]
    pub rootfs: RootFs,
    /// One entry per instruction.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Fields not listed above.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The `config` object: defaults for a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// User or uid, with optional group.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports as `80/tcp`; the values are empty objects.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `NAME=value`, in order.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Command prefix.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Default arguments.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Paths of volumes; the values are empty objects.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Value>,
    /// Working directory.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that ends the container.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Windows only: the command is escaped already.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// Docker: health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker: instructions for images built on this one.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Docker: shell of the shell form.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Fields not listed above.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Docker's health check. Durations are nanoseconds, zero inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, or `CMD` and arguments, or `CMD-SHELL` and a line; empty inherits.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time after which a check counts as failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time in which failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks within the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`
    #[serde(default, rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// Digests of the unpacked layers, bottom first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

impl RootFs {
    /// Layers by diff id.
    pub fn layers(diff_ids: Vec<Digest>) -> Self {
        Self { kind: "layers".to_string(), diff_ids }
    }
}

/// One instruction of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, with = "time", skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The instruction.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A remark, such as the builder's name.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads a config.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// Compact, fields in struct order, as Docker's frontend prints it.
    pub fn to_vec(&self) -> serde_json::Result<Vec<u8>> {
        json::to_vec(self)
    }

    /// Forgets unknown fields, as BuildKit's Dockerfile frontend does with those of the base image.
    pub fn drop_unknown(&mut self) {
        self.extra.clear();
        self.config.extra.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_in_struct_order() {
        let mut c = ImageConfig {
            created: Some("2026-01-02T03:04:05.100Z".parse().unwrap()),
            platform: Platform::parse("linux/arm64/v8").unwrap(),
            rootfs: RootFs::layers(vec![Digest::sha256("x")]),
            history: vec![History { created_by: "RUN a && b".into(), ..History::default() }],
            ..ImageConfig::default()
        };
        c.config.env = vec!["A=<".into()];
        c.config.exposed_ports.insert("80/tcp".into(), Value::Object(Map::new()));
        c.config.healthcheck =
            Some(Healthcheck { test: vec!["NONE".into()], retries: 3, ..Default::default() });
        let text = String::from_utf8(c.to_vec().unwrap()).unwrap();
        let x = Digest::sha256("x");
        assert_eq!(
            text,
            format!(
                concat!(
                    r#"{{"created":"2026-01-02T03:04:05.1Z","architecture":"arm64","os":"linux","variant":"v8","#,
                    r#""config":{{"ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=\u003c"],"#,
                    r#""Healthcheck":{{"Test":["NONE"],"Retries":3}}}},"#,
                    r#""rootfs":{{"type":"layers","diff_ids":["{}"]}},"#,
                    r#""history":[{{"created_by":"RUN a \u0026\u0026 b"}}]}}"#
                ),
                x
            )
        );
        assert_eq!(ImageConfig::parse(text.as_bytes()).unwrap(), c);
    }

    #[test]
    fn keeps_what_it_does_not_know() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Hostname":"h"},"rootfs":null,"docker_version":"1","moby.buildkit.cache.v0":"x"}"#;
        let mut c = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(c.extra.keys().collect::<Vec<_>>(), ["docker_version", "moby.buildkit.cache.v0"]);
        let out = String::from_utf8(c.to_vec().unwrap()).unwrap();
        assert_eq!(
            out,
            r#"{"architecture":"amd64","os":"linux","config":{"Hostname":"h"},"rootfs":{"type":"","diff_ids":[]},"docker_version":"1","moby.buildkit.cache.v0":"x"}"#
        );
        c.drop_unknown();
        assert!(!String::from_utf8(c.to_vec().unwrap()).unwrap().contains("Hostname"));
    }

    #[test]
    fn reads_what_go_reads() {
        for ok in ["{}", r#"{"config":null}"#, r#"{"history":null,"created":null}"#, r#"{"os":null}"#] {
            ImageConfig::parse(ok.as_bytes()).unwrap();
        }
        for bad in ["null", "[]", r#"{"created":"yesterday"}"#, r#"{"rootfs":{"diff_ids":["x"]}}"#] {
            assert!(ImageConfig::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let offset = ImageConfig::parse(br#"{"created":"2020-01-01T02:00:00+02:00"}"#).unwrap();
        assert_eq!(offset.created, Some("2020-01-01T00:00:00Z".parse().unwrap()));
        ImageConfig::parse(br#"{"created":"0001-01-01T00:00:00Z"}"#).unwrap();
    }
}
