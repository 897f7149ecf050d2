//! What the build may ask of this machine: directories, secrets, agents.

use super::options::pairs;
use crate::error::{Error, system};
use kiln_client::{Identity, LocalDir, MAX_SECRET_SIZE, RegistryTls, SecretOrigin, SecretSource, SshSource};
use kiln_go::{csv::fields, parse_bool};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `--local NAME=DIR`
pub(super) fn locals(texts: &[String]) -> Result<BTreeMap<String, LocalDir>, String> {
    let open = |(name, path): (String, String)| match std::fs::metadata(&path) {
        Ok(m) if m.is_dir() => Ok((name, LocalDir { path: path.into(), exclude: Vec::new() })),
        Ok(_) => Err(format!("stat {path}: not a directory")),
        Err(e) => Err(format!("resolve : lstat {path}: {}", system(&e))),
    };
    pairs(texts)?.into_iter().map(open).collect()
}

/// `--oci-layout NAME=DIR`
pub(super) fn layouts(texts: &[String]) -> Result<BTreeMap<String, PathBuf>, String> {
    let open = |text: &String| {
        let (id, path) = text.split_once('=').ok_or_else(|| {
            format!("oci-layout option must be 'id=path/to/layout', instead had invalid {text}")
        })?;
        match std::fs::metadata(path) {
            Ok(m) if m.is_dir() => Ok((id.to_owned(), path.into())),
            Ok(_) => Err(format!("oci-layout context at {path} failed to initialize: not a directory")),
            Err(e) => Err(format!("oci-layout context at {path} failed to initialize: {}", system(&e))),
        }
    };
    texts.iter().map(open).collect()
}

/// `--secret id=NAME[,src=FILE | ,env=VAR][,type=file|env]`. With only an id, the variable of that name, else the file.
pub(super) fn secrets(
    texts: &[String],
    env: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Result<Vec<SecretSource>, Error> {
    let all = texts.iter().map(|text| secret(text, env)).collect::<Result<Vec<_>, _>>()?;
    Ok(all.into_iter().flatten().collect())
}

/// None for a variable that is not set: the build says so if it needs it.
fn secret(text: &str, env: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Option<SecretSource>, Error> {
    let (mut id, mut file, mut variable, mut kind) = Default::default();
    for field in fields(text).map_err(|e| format!("failed to parse csv secret: {e}"))? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        let value = value.to_owned();
        match key.to_lowercase().as_str() {
            "type" if value != "file" && value != "env" => {
                return Err(format!("unsupported secret type {value:?}").into());
            }
            "type" => kind = value,
            "id" => id = value,
            "source" | "src" => file = value,
            "env" => variable = value,
            key => return Err(format!("unexpected key '{key}' in '{field}'").into()),
        }
    }
    if kind == "env" && variable.is_empty() {
        variable = std::mem::take(&mut file);
    }
    if id.is_empty() {
        return Err("secret missing ID".into());
    }
    if variable.is_empty() && file.is_empty() {
        if env(&id).is_some() { variable.clone_from(&id) } else { file.clone_from(&id) }
    }
    if file.is_empty() {
        return Ok(env(&variable).map(|value| SecretSource { id, origin: SecretOrigin::Value(value) }));
    }
    let stat = std::fs::metadata(Path::new(&file));
    let stat = stat.map_err(|e| format!("failed to stat {file}: stat {file}: {}", system(&e)))?;
    if stat.len() > MAX_SECRET_SIZE {
        return Err(format!("secret {id} too big. max size 500KB").into());
    }
    Ok(Some(SecretSource { id, origin: SecretOrigin::File(file.into()) }))
}

/// `--ssh default|ID[=SOCKET[,raw=BOOL]|KEY[,KEY]]`
pub(super) fn ssh(text: &str) -> Result<SshSource, Error> {
    let (id, rest) = text.split_once('=').map_or((text, None), |(id, rest)| (id, Some(rest)));
    let mut source = SshSource { id: id.to_owned(), paths: Vec::new(), raw: false };
    for part in rest.map(|r| r.split(',')).into_iter().flatten() {
        match part.split_once('=') {
            Some(("raw", value)) => {
                source.raw = parse_bool(value).ok_or_else(|| {
                    format!("invalid value for 'raw': {value}: strconv.ParseBool: parsing {value:?}: invalid syntax")
                })?;
            }
            _ => source.paths.push(part.into()),
        }
    }
    if source.raw && source.paths.len() != 1 {
        return Err(format!("raw mode must supply exactly one socket path for {id:?}").into());
    }
    Ok(source)
}

/// `--allow`
pub(super) fn check_entitlement(text: &str) -> Result<(), Error> {
    let (name, rest) = text.split_once('=').map_or((text, None), |(n, r)| (n, Some(r)));
    match name {
        "network.host" | "security.insecure" | "device" if rest.is_none() || name == "device" => Ok(()),
        _ => Err(format!("unknown entitlement {text}").into()),
    }
}

/// `--registry-auth-tlscontext host=HOST[,ca=FILE][,cert=FILE,key=FILE][,insecure=BOOL]`; those of one host add up.
pub(super) fn tls_contexts(texts: &[String]) -> Result<BTreeMap<String, RegistryTls>, Error> {
    let mut contexts: BTreeMap<String, RegistryTls> = BTreeMap::new();
    for text in texts {
        let mut entry = BTreeMap::new();
        for field in fields(text).map_err(|e| e.to_string())? {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
            entry.insert(key.to_lowercase(), value.to_owned());
        }
        let mut take = |key: &str| entry.remove(key).filter(|v| !v.is_empty());
        let (host, ca, cert, key) = (take("host"), take("ca"), take("cert"), take("key"));
        let insecure = take("insecure").and_then(|v| parse_bool(&v)) == Some(true);
        let host = host.ok_or("--registry-auth-tlscontext requires host=<host>")?;
        match (&ca, &cert, &key) {
            (None, None, _) | (None, _, None) if !insecure => {
                return Err(
                    "--registry-auth-tlscontext requires ca=<ca> or cert=<cert>,key=<key> or insecure=true"
                        .into(),
                );
            }
            (Some(_), Some(_), None) | (Some(_), None, Some(_)) => {
                return Err("--registry-auth-tlscontext requires cert=<cert>,key=<key>".into());
            }
            _ => {}
        }
        let context = contexts.entry(host.clone()).or_default();
        context.insecure |= insecure;
        context.ca.extend(ca.map(PathBuf::from));
        if let Some((cert, key)) = cert.zip(key) {
            if context.identity.is_some() {
                return Err(
                    format!("--registry-auth-tlscontext: one certificate for {host}, not several").into()
                );
            }
            context.identity = Some(Identity { cert: cert.into(), key: key.into() });
        }
    }
    Ok(contexts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_variables() {
        let env = |name: &str| (name == "TOKEN").then(|| b"t".to_vec());
        let parse = |text: &str| secret(text, &env).map_err(|e| e.to_string());
        let value = SecretOrigin::Value(b"t".to_vec());
        for text in ["id=TOKEN", "id=TOKEN,type=env", "id=x,env=TOKEN", "id=x,type=env,src=TOKEN"] {
            assert_eq!(parse(text).unwrap().unwrap().origin, value, "{text}");
        }
        assert_eq!(parse("id=x,env=NOT_SET"), Ok(None));
        for (text, expected) in [
            ("nosuch", "invalid field 'nosuch' must be a key=value pair"),
            ("id=nosuch", "failed to stat nosuch: stat nosuch: no such file or directory"),
            ("foo=x", "unexpected key 'foo' in 'foo=x'"),
            ("type=x,id=x", "unsupported secret type \"x\""),
            ("src=/etc/hostname", "secret missing ID"),
            ("", "failed to parse csv secret: EOF"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn certificates_of_registries() {
        let parse = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
            tls_contexts(&texts).map_err(|e| e.to_string())
        };
        let both = parse(&["host=h,ca=a", "host=h,Cert=c,key=k", "host=i,insecure=true"]).unwrap();
        assert_eq!(both["h"].ca, [PathBuf::from("a")]);
        assert_eq!(both["h"].identity, Some(Identity { cert: "c".into(), key: "k".into() }));
        assert!(both["i"].insecure && !both["h"].insecure);
        for (text, expected) in [
            ("x", "invalid value x"),
            ("ca=x", "--registry-auth-tlscontext requires host=<host>"),
            (
                "host=x",
                "--registry-auth-tlscontext requires ca=<ca> or cert=<cert>,key=<key> or insecure=true",
            ),
            ("host=x,ca=y,key=z", "--registry-auth-tlscontext requires cert=<cert>,key=<key>"),
        ] {
            assert_eq!(parse(&[text]).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn agents_directories_and_permissions() {
        let parsed = ssh("a=/s,raw=true").unwrap();
        assert_eq!((parsed.id.as_str(), parsed.raw, parsed.paths.len()), ("a", true, 1));
        assert_eq!(ssh("default").unwrap().paths.len(), 0);
        for (text, expected) in [
            ("a=raw=x", "invalid value for 'raw': x: strconv.ParseBool: parsing \"x\": invalid syntax"),
            ("a=x,y,raw=1", "raw mode must supply exactly one socket path for \"a\""),
        ] {
            assert_eq!(ssh(text).unwrap_err().to_string(), expected);
        }
        assert_eq!(locals(&["context".into()]).unwrap_err(), "invalid value context");
        assert_eq!(
            locals(&["c=/no/such".into()]).unwrap_err(),
            "resolve : lstat /no/such: no such file or directory"
        );
        assert_eq!(
            layouts(&["x".into()]).unwrap_err(),
            "oci-layout option must be 'id=path/to/layout', instead had invalid x"
        );
        assert_eq!(
            layouts(&["x=/no/such".into()]).unwrap_err(),
            "oci-layout context at /no/such failed to initialize: no such file or directory"
        );
        assert_eq!(layouts(&["x=/".into()]).unwrap()["x"], Path::new("/"));
        assert!(check_entitlement("device=x").is_ok() && check_entitlement("network.host").is_ok());
        assert_eq!(check_entitlement("nosuch").unwrap_err().to_string(), "unknown entitlement nosuch");
    }
}
