//! What `cargo metadata` says of the workspace.

use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) licence: Option<String>,
    /// `package.metadata.kiln.floor`
    pub(crate) floor: Option<i64>,
    pub(crate) member: bool,
    /// Names of normal and build dependencies (not dev-dependencies).
    pub(crate) dependencies: Vec<String>,
    pub(crate) dev_dependencies: Vec<String>,
}

pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
}

impl Workspace {
    pub(crate) fn load() -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        let output = Command::new(cargo)
            .args(["metadata", "--format-version=1", "--locked", "--manifest-path", manifest])
            .output()
            .expect("cargo metadata runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
        let members: Vec<&str> = array(&json["workspace_members"]).filter_map(Value::as_str).collect();
        let packages = array(&json["packages"]).map(|p| package(p, &members)).collect();
        Self { packages }
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|p| p.member)
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn package(json: &Value, members: &[&str]) -> Package {
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_string();
    let mut dir = PathBuf::from(text("manifest_path"));
    dir.pop();
    Package {
        name: text("name"),
        dir,
        licence: json["license"].as_str().map(Into::into),
        floor: json["metadata"]["kiln"]["floor"].as_i64(),
        member: members.contains(&text("id").as_str()),
        dependencies: dependencies(json, false),
        dev_dependencies: dependencies(json, true),
    }
}

fn dependencies(package: &Value, dev: bool) -> Vec<String> {
    array(&package["dependencies"])
        .filter(|d| (d["kind"].as_str() == Some("dev")) == dev)
        .filter_map(|d| d["name"].as_str().map(Into::into))
        .collect()
}
