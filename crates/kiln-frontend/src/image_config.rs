//! The image config that a stage collects.

use jiff::Timestamp;
use kiln_oci::{History, ImageConfig, Platform, RootFs};

/// What BuildKit writes into the comment of every history entry.
const COMMENT: &str = "buildkit.dockerfile.v0";
pub(crate) const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The config of scratch.
pub(crate) fn empty(platform: &Platform) -> ImageConfig {
    let mut image =
        ImageConfig { platform: platform.clone(), rootfs: RootFs::layers(Vec::new()), ..Default::default() };
    image.config.working_dir = "/".to_string();
    if platform.os != "windows" {
        image.config.env = vec![DEFAULT_PATH.to_string()];
    }
    image
}

/// Reads the config of a base image; unknown fields do not go into what is built on it.
pub(crate) fn parse(bytes: &[u8]) -> Result<ImageConfig, serde_json::Error> {
    let mut image = ImageConfig::parse(bytes)?;
    image.drop_unknown();
    Ok(image)
}

/// The config with its members in the order of the reference's frontend: `config` last.
pub(crate) fn to_vec(image: &ImageConfig) -> Result<Vec<u8>, serde_json::Error> {
    let mut value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&image.to_vec()?)?;
    if let Some(config) = value.shift_remove("config") {
        value.insert("config".to_string(), config);
    }
    kiln_go::json::to_vec(&value)
}

/// Adds an entry to the history. Credentials in addresses are masked, but where the config has the text in plain anyway.
pub(crate) fn commit(image: &mut ImageConfig, created_by: String, layer: bool, created: Option<i64>) {
    image.history.push(History {
        created: created.and_then(|s| Timestamp::from_second(s).ok()),
        created_by: if layer { kiln_llb::mask_credentials(&created_by).into_owned() } else { created_by },
        comment: COMMENT.to_string(),
        empty_layer: !layer,
        ..Default::default()
    });
}

/// Sets a variable where it stands, or at the end.
pub(crate) fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let line = format!("{key}={value}");
    match env.iter_mut().find(|e| split_env(e).0 == key) {
        Some(old) => *old = line,
        None => env.push(line),
    }
}

/// Name and value of `NAME=value`.
pub(crate) fn split_env(line: &str) -> (&str, &str) {
    line.split_once('=').unwrap_or((line, ""))
}

/// The words of a shell form.
pub(crate) fn with_shell(image: &ImageConfig, command: &str) -> Vec<String> {
    let mut words = image.config.shell.clone();
    if words.is_empty() {
        let default: &[&str] =
            if image.platform.os == "windows" { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
        words = default.iter().map(ToString::to_string).collect();
    }
    words.push(command.to_string());
    words
}
