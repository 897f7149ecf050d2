//! `--output`, `--push`, `--load`.

use super::{plan, plan_error};
use crate::build::export::{Dest, Export, ExportKind};

fn one(spec: &str) -> Export {
    let mut exports = plan(&["-o", spec, "."]).unwrap_or_else(|e| panic!("{spec}: {e}")).exports;
    assert_eq!(exports.len(), 1);
    exports.remove(0)
}

fn error(spec: &str) -> String {
    plan_error(&["-o", spec, "."])
}

#[test]
fn destinations() {
    let cases = [
        ("out", ExportKind::Local, Dest::Directory("out".into())),
        ("-", ExportKind::Tar, Dest::Stdout),
        ("type=local,dest=out", ExportKind::Local, Dest::Directory("out".into())),
        ("type=tar,dest=x.tar", ExportKind::Tar, Dest::File("x.tar".into())),
        ("type=tar", ExportKind::Tar, Dest::Stdout),
        ("type=oci,dest=-", ExportKind::Oci, Dest::Stdout),
        ("type=oci,dest=x,tar=false", ExportKind::Oci, Dest::Directory("x".into())),
        ("type=docker", ExportKind::Docker, Dest::Docker),
        ("type=docker,dest=x.tar", ExportKind::Docker, Dest::File("x.tar".into())),
        ("type=image", ExportKind::Image, Dest::Daemon),
        ("\"type=local\",\"dest=a,b\"", ExportKind::Local, Dest::Directory("a,b".into())),
    ];
    for (spec, kind, dest) in cases {
        let export = one(spec);
        assert_eq!((export.kind, export.dest), (kind, dest), "{spec}");
    }
}

#[test]
fn options() {
    let export =
        one("type=oci,dest=x.tar,Compression=zstd,compression-level=3,force-compression=true,name=a");
    let attrs: Vec<_> = export.attrs.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(attrs, ["compression=zstd", "compression-level=3", "force-compression=true", "name=a"]);
    let export = one("type=registry,name=a.b/c");
    assert_eq!((export.kind, export.attrs["push"].as_str()), (ExportKind::Image, "true"));
}

#[test]
fn push_and_load_join_what_is_there() {
    let exports = |flags: &[&str]| plan(flags).unwrap().exports;
    let push = exports(&["--push", "-t", "a.b/c", "."]);
    assert_eq!((push.len(), push[0].attrs["push"].as_str()), (1, "true"));
    assert_eq!(push[0].attrs["name"], "a.b/c:latest");
    let both = exports(&["--push", "--load", "-o", "type=image", "-t", "a.b/c", "."]);
    assert_eq!(both.iter().map(|e| e.kind).collect::<Vec<_>>(), [ExportKind::Image, ExportKind::Docker]);
    assert_eq!(both[0].attrs["push"], "true");
    assert_eq!(exports(&["--load", "-o", "type=docker", "."]).len(), 1);
    assert_eq!(exports(&["-o", "out", "-o", "type=docker", "."]).len(), 2);
}

#[test]
fn errors_name_the_value_and_what_would_do() {
    let cases = [
        (
            "type=locl,dest=x",
            "unknown type 'locl' (did you mean local?); known: local, tar, oci, docker, image, registry, cacheonly",
        ),
        ("dest=x", "type is missing: one of local"),
        ("type=oci,compresion=gzip", "unknown key 'compresion' (did you mean compression?)"),
        ("type=oci,compression=gz", "unknown compression 'gz' (did you mean"),
        ("type=oci,compression-level=high", "compression-level 'high' is not a number"),
        (
            "type=local,dest=x,compression=gzip",
            "unknown key 'compression'; known: source-date-epoch, platform-split",
        ),
        ("type=local,output=x", "output=x is not a key; did you mean dest=x?"),
        ("type=local", "dest=DIRECTORY is missing for type=local"),
        ("type=local,dest=-", "type=local is a directory and cannot go to stdout"),
        ("type=local,dest=/etc/hosts", "/etc/hosts is a file; a directory is needed"),
        ("type=oci,dest=/etc", "/etc is a directory; a file is needed"),
        ("type=image,dest=x", "an image has no dest"),
        ("type=image,push=maybe", "push is true or false, not 'maybe'"),
        ("type=oci,source-date-epoch=now", "source-date-epoch 'now' is not a number"),
        ("type=oci,x", "field 'x' must be key=value"),
        ("type=\"oci", "parse error on line 1, column 6"),
    ];
    for (spec, want) in cases {
        let text = error(spec);
        assert!(text.starts_with(&format!("invalid value '{spec}' for --output: ")), "{text}");
        assert!(text.contains(want), "{spec}: {text}");
    }
    assert_eq!(plan_error(&["--push", "."]), "pushing needs a name: add --tag REGISTRY/NAME[:TAG]");
    assert_eq!(error("type=registry"), "pushing needs a name: add --tag REGISTRY/NAME[:TAG]");
    let twice = plan_error(&["-o", "-", "-o", "type=oci", "."]);
    assert_eq!(twice, "several outputs want stdout; give all but one a dest=FILE");
    assert_eq!(
        plan_error(&["-o", "out", "--iidfile", "x", "."]),
        "--iidfile needs an image, and type=local makes none"
    );
}

#[test]
fn only_directories_below_the_current_one_are_emptied_unasked() {
    let delete = |dest: &str| format!("type=local,dest={dest},mode=delete");
    assert!(super::plan(&["-o", &delete("out"), "."]).unwrap().exports[0].deletes());
    for dest in [".", "..", "/nonexistent/out", "out/../../x"] {
        let error = super::plan_error(&["-o", &delete(dest), "."]);
        assert!(error.ends_with("requires --allow=buildx.local.delete"), "{dest}: {error}");
    }
    let allowed =
        super::plan(&["--allow", "buildx.local.delete", "-o", &delete("/nonexistent/out"), "."]).unwrap();
    assert!(allowed.exports[0].deletes() && allowed.entitlements.is_empty());
    let error = super::plan_error(&["--allow", "buildx.local.delete=true", "."]);
    assert_eq!(error, "buildx.local.delete does not accept a value");
    assert!(super::plan_error(&["-o", "type=local,dest=o,mode=x", "."]).contains("mode is copy or delete"));
}
