//! Credentials as Docker's command line keeps them: `config.json` and credential helpers.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::RegistryTls;

/// Docker Hub's name in `config.json`.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Docker Hub's name as a registry.
const HUB_HOST: &str = "registry-1.docker.io";
/// User name by which helpers mark an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers print when they have nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// Largest configuration, in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// Credentials for one registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// None: anonymous.
    #[default]
    Anonymous,
    /// User name and password.
    Password(String, String),
    /// A refresh token.
    IdentityToken(String),
    /// A ready bearer token.
    RegistryToken(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password(..) => "Password",
            Self::IdentityToken(_) => "IdentityToken",
            Self::RegistryToken(_) => "RegistryToken",
        })
    }
}

/// Docker's configuration, as far as it is about credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    dir: PathBuf,
    extra: HashMap<String, Auth>,
    file: ConfigFile,
    /// Let the daemon ask us for tokens instead of passwords; on by default.
    pub client_tokens: bool,
    /// Certificates for token servers, by registry.
    pub registry_tls: BTreeMap<String, RegistryTls>,
}

impl std::fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerConfig").field("dir", &self.dir).finish_non_exhaustive()
    }
}

#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct ConfigFile {
    auths: HashMap<String, Auth>,
    #[serde(rename = "credsStore")]
    store: String,
    #[serde(rename = "credHelpers")]
    helpers: HashMap<String, String>,
}

#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl DockerConfig {
    /// Reads `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`, and `$DOCKER_AUTH_CONFIG`. Missing is empty;
    /// `BUILDKIT_NO_CLIENT_TOKEN=1` turns client-side tokens off.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> io::Result<Self> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let home = || set("HOME").map(|home| Path::new(&home).join(".docker"));
        let dir = set("DOCKER_CONFIG").map(PathBuf::from).or_else(home);
        let mut config = match dir {
            Some(dir) => Self::load(&dir)?,
            None => Self { client_tokens: true, ..Self::default() },
        };
        if let Some(json) = set("DOCKER_AUTH_CONFIG") {
            let parsed = serde_json::from_str::<ConfigFile>(&json);
            config.extra = parsed.map_err(|e| bad("DOCKER_AUTH_CONFIG", &e))?.auths;
        }
        let off = set("BUILDKIT_NO_CLIENT_TOKEN").and_then(|v| kiln_go::parse_bool(&v));
        config.client_tokens = off != Some(true);
        Ok(config)
    }

    /// Reads `config.json` in a directory; a missing one is empty.
    pub fn load(dir: &Path) -> io::Result<Self> {
        let path = dir.join("config.json");
        let file = match std::fs::metadata(&path) {
            Ok(meta) if meta.len() > MAX_CONFIG => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is too large", path.display()),
                ));
            }
            Ok(_) => {
                let text = std::fs::read(&path).map_err(|e| named(&path, &e))?;
                serde_json::from_slice(&text).map_err(|e| bad(&path.display().to_string(), &e))?
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                ConfigFile::default()
            }
            Err(e) => return Err(named(&path, &e)),
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            extra: HashMap::new(),
            file,
            client_tokens: true,
            registry_tls: BTreeMap::new(),
        })
    }

    /// The directory, which other tools keep their files in too.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The credentials for a registry host. May run a credential helper.
    pub async fn login(&self, host: &str) -> io::Result<Login> {
        let key = if host == HUB_HOST { HUB_KEY } else { host };
        if let Some(auth) = find(&self.extra, key) {
            return auth.login();
        }
        let helper = self.file.helpers.get(key).or_else(|| self.file.helpers.get(host));
        let helper = helper.unwrap_or(&self.file.store);
        let from_file = || find(&self.file.auths, key).map_or(Ok(Login::Anonymous), Auth::login);
        if helper.is_empty() {
            return from_file();
        }
        match ask_helper(helper, key).await? {
            Some(login) => Ok(login),
            None => from_file(),
        }
    }
}

fn named(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

/// The parser's message names only line and column, never the content.
fn bad(what: &str, e: &serde_json::Error) -> io::Error {
    let text = format!("{what}: invalid JSON at line {} column {}", e.line(), e.column());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Entries may be written as addresses.
fn find<'a>(auths: &'a HashMap<String, Auth>, key: &str) -> Option<&'a Auth> {
    let host = |address: &str| -> String {
        let rest =
            address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
        rest.split('/').next().unwrap_or_default().to_string()
    };
    auths.get(key).or_else(|| auths.iter().find(|(name, _)| host(name) == key).map(|(_, auth)| auth))
}

impl Auth {
    fn login(&self) -> io::Result<Login> {
        if !self.registrytoken.is_empty() {
            return Ok(Login::RegistryToken(self.registrytoken.clone()));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Login::IdentityToken(self.identitytoken.clone()));
        }
        let (mut user, mut password) = (self.username.clone(), self.password.clone());
        if !self.auth.is_empty() {
            (user, password) = decode(&self.auth)?;
        }
        Ok(if password.is_empty() && user.is_empty() {
            Login::Anonymous
        } else {
            Login::Password(user, password)
        })
    }
}

fn decode(auth: &str) -> io::Result<(String, String)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "invalid auth configuration file");
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes =
        GeneralPurpose::new(&base64::alphabet::STANDARD, config).decode(auth).map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let (user, password) = text.split_once(':').ok_or_else(invalid)?;
    Ok((user.to_string(), password.trim_end_matches('\0').to_string()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Runs `docker-credential-<name> get` (docker/docker-credential-helpers, README).
async fn ask_helper(name: &str, server: &str) -> io::Result<Option<Login>> {
    let failed = |e: String| io::Error::other(format!("credential helper docker-credential-{name}: {e}"));
    if name.contains('/') {
        return Err(failed("invalid name".to_string()));
    }
    let mut helper = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = helper.stdin.take() {
        // A helper that does not read still answers.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let output = helper.wait_with_output().await.map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
        return if text == NOT_FOUND { Ok(None) } else { Err(failed(format!("{}: {text}", output.status))) };
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("answer is not understood".to_string()))?;
    Ok(match answer {
        HelperAnswer { secret, .. } if secret.is_empty() => None,
        HelperAnswer { username, secret } if username == TOKEN_USER => Some(Login::IdentityToken(secret)),
        HelperAnswer { username, secret } => Some(Login::Password(username, secret)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> DockerConfig {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), json).unwrap();
        DockerConfig::load(dir.path()).unwrap()
    }

    #[tokio::test]
    async fn logins_come_in_every_form() {
        let c = config(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "dTpw"},
                "https://r.example/v1/": {"username": "x", "password": "y"},
                "i.example": {"auth": "dTpw", "identitytoken": "it"},
                "t.example:5000": {"registrytoken": "rt"},
                "e.example": {},
                "c.example": {"auth": "dTpwOnE="}
            }, "HttpHeaders": {"A": "b"}}"#,
        );
        let password = |u: &str, p: &str| Login::Password(u.into(), p.into());
        assert_eq!(c.login("registry-1.docker.io").await.unwrap(), password("u", "p"));
        assert_eq!(c.login("r.example").await.unwrap(), password("x", "y"));
        assert_eq!(c.login("i.example").await.unwrap(), Login::IdentityToken("it".into()));
        assert_eq!(c.login("t.example:5000").await.unwrap(), Login::RegistryToken("rt".into()));
        assert_eq!(c.login("e.example").await.unwrap(), Login::Anonymous);
        assert_eq!(c.login("c.example").await.unwrap(), password("u", "p:q"));
        assert_eq!(c.login("other").await.unwrap(), Login::Anonymous);
        assert!(!format!("{c:?}{:?}", password("u", "canary")).contains("canary"));
    }

    #[tokio::test]
    async fn the_environment_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"auths": {"a": {"auth": "dTpw"}}}"#).unwrap();
        let dir = dir.path().to_string_lossy().into_owned();
        let env = |name: &str| match name {
            "DOCKER_CONFIG" => Some(dir.clone()),
            "DOCKER_AUTH_CONFIG" => Some(r#"{"auths": {"a": {"auth": "djp3"}}}"#.to_string()),
            "BUILDKIT_NO_CLIENT_TOKEN" => Some("1".to_string()),
            _ => None,
        };
        let c = DockerConfig::from_env(env).unwrap();
        assert_eq!(c.login("a").await.unwrap(), Login::Password("v".into(), "w".into()));
        assert!(!c.client_tokens);
        let none = DockerConfig::from_env(|_| None).unwrap();
        assert_eq!(none.login("a").await.unwrap(), Login::Anonymous);
    }

    #[tokio::test]
    async fn broken_configurations_are_named_without_their_content() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"auths": "canary"#).unwrap();
        let error = DockerConfig::load(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("config.json: invalid JSON at line 1") && !error.contains("canary"),
            "{error}"
        );
        assert!(config(r#"{"auths": {"a": {"auth": "!"}}}"#).login("a").await.is_err());
        let error = config(r#"{"credHelpers": {"a": "../evil"}}"#).login("a").await.unwrap_err().to_string();
        assert_eq!(error, "credential helper docker-credential-../evil: invalid name");
        let error = config(r#"{"credsStore": "kiln-nonexistent"}"#).login("a").await.unwrap_err().to_string();
        assert!(error.starts_with("credential helper docker-credential-kiln-nonexistent: "), "{error}");
    }
}
