use super::*;
use std::path::Path;

const GPUS: &str = r#"
cdiVersion: "0.6.0"
kind: "vendor1.com/device"
annotations:
  org.mobyproject.buildkit.device.autoallow: true
containerEdits:
  env: [COMMON=1]
devices:
- name: foo
  annotations:
    org.mobyproject.buildkit.device.class: class1
  containerEdits:
    env: [FOO=injected]
    deviceNodes:
    - path: /dev/foo
      hostPath: /dev/null
    mounts:
    - {hostPath: /lib/foo, containerPath: /usr/lib/foo, options: [ro, bind]}
- name: bar
  containerEdits: {env: [BAR=injected], additionalGIDs: [44]}
"#;

fn registry(files: &[(&str, &str)], auto: &[&str]) -> (tempfile::TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let dirs = vec![dir.path().join("a"), dir.path().join("b")];
    (dir, Registry::new(dirs, auto.iter().map(|a| (*a).to_string()).collect()))
}

fn names(devices: &Devices, request: &str) -> Vec<String> {
    let found = devices.find(&[Request { name: request, optional: true }]).unwrap();
    found.iter().map(|d| d.name.clone()).collect()
}

#[test]
fn devices_are_found_by_every_form_of_name() {
    let (_dir, registry) = registry(&[("a/gpus.yaml", GPUS)], &[]);
    let devices = registry.scan();
    assert!(devices.problems.is_empty(), "{:?}", devices.problems);
    assert!(devices.iter().all(|d| d.auto_allowed));
    assert_eq!(names(&devices, "vendor1.com/device=foo"), ["vendor1.com/device=foo"]);
    assert_eq!(names(&devices, "vendor1.com/device"), ["vendor1.com/device=bar"], "the first by name");
    assert_eq!(names(&devices, "vendor1.com/device=*").len(), 2);
    assert_eq!(names(&devices, "class1"), ["vendor1.com/device=foo"]);
    assert!(names(&devices, "vendor1.com/device=no").is_empty());
    assert!(names(&devices, "class2").is_empty());
    let missing = devices.find(&[Request { name: "class2", optional: false }]).unwrap_err();
    assert_eq!(missing.to_string(), "required device \"class2\" is not registered");
}

#[test]
fn the_common_part_is_given_once() {
    let (_dir, registry) = registry(&[("a/gpus.yaml", GPUS)], &[]);
    let devices = registry.scan();
    let all = [Request { name: "vendor1.com/device=*", optional: false }];
    let edits = Edits::of(&devices.find(&all).unwrap());
    assert_eq!(edits.env, ["COMMON=1", "BAR=injected", "FOO=injected"]);
    assert_eq!(edits.additional_gids, [44]);
    assert_eq!(edits.device_nodes[0].host(), Path::new("/dev/null"));
    assert!(edits.mounts[0].has("ro"));
    assert_eq!(edits.unsupported(), None);
}

#[test]
fn later_directories_win_and_bad_files_are_named() {
    let json = r#"{"cdiVersion":"0.5.0","kind":"v.com/d","devices":[{"name":"x","containerEdits":{"env":["A=b"],
        "hooks":[{"hookName":"createContainer","path":"/usr/bin/h"}]}}]}"#;
    let (_dir, registry) = registry(
        &[
            ("a/x.yaml", "cdiVersion: '0.5.0'\nkind: v.com/d\ndevices: [{name: x}]"),
            ("b/x.json", json),
            ("b/broken.yaml", "kind: ["),
            ("b/kind.yaml", "cdiVersion: '0.5.0'\nkind: nothing"),
            ("b/name.yaml", "cdiVersion: '0.5.0'\nkind: v.com/e\ndevices: [{name: ../x}]"),
            ("b/notes.txt", "not a spec"),
        ],
        &["v.com/d"],
    );
    let devices = registry.scan();
    assert_eq!(devices.problems.len(), 3, "{:?}", devices.problems);
    let x = devices.find(&[Request { name: "v.com/d=x", optional: false }]).unwrap();
    assert!(x[0].auto_allowed);
    let hooks = Edits::of(&x).hooks;
    assert_eq!(
        (hooks[0].hook_name, hooks[0].path.as_path()),
        (HookName::CreateContainer, Path::new("/usr/bin/h"))
    );
}

#[test]
fn absurd_files_are_refused() {
    let large = format!("# {}", "x".repeat(2 << 20));
    let deep = format!("a: {}", "[".repeat(100_000));
    let (_dir, registry) = registry(&[("a/large.yaml", &large), ("a/deep.yaml", &deep)], &[]);
    assert_eq!(registry.scan().problems.len(), 2);
}

#[test]
fn what_two_files_of_a_directory_describe_is_neither() {
    let one = "cdiVersion: '0.5.0'\nkind: v.com/d\ndevices: [{name: x}, {name: NAME}]";
    let (_dir, registry) = registry(
        &[
            ("a/0.yaml", one),
            ("b/1.yaml", &one.replace("NAME", "y")),
            ("b/2.yaml", &one.replace("NAME", "z")),
        ],
        &[],
    );
    let devices = registry.scan();
    assert_eq!(devices.problems.len(), 1, "{:?}", devices.problems);
    assert_eq!(names(&devices, "v.com/d=*"), ["v.com/d=NAME", "v.com/d=y", "v.com/d=z"]);
}

/// The edits of a file with one device, or why it could not be used.
fn edits(text: &str) -> Result<Edits, String> {
    let file =
        format!("cdiVersion: '0.5.0'\nkind: v.com/d\ndevices: [{{name: x, containerEdits: {{{text}}}}}]");
    let (_dir, registry) = registry(&[("a/x.yaml", &file)], &[]);
    let devices = registry.scan();
    match devices.problems.first() {
        Some(problem) => Err(problem.clone()),
        None => Ok(Edits::of(&devices.find(&[Request { name: "v.com/d=x", optional: false }]).unwrap())),
    }
}

#[test]
fn what_cannot_be_given_is_named() {
    for (text, want) in [
        (
            "deviceNodes: [{path: /dev/x, type: c, major: 1, minor: 3, fileMode: 0o600, permissions: rwm}]",
            None,
        ),
        ("deviceNodes: [{path: /dev/x, type: p}, {path: /dev/y, permissions: r, type: ''}]", None),
        (
            "mounts: [{hostPath: /a, containerPath: /b, type: bind, options: [ro, nosuid, nodev, rbind, rprivate]}]",
            None,
        ),
        ("intelRdt: {closID: a}", None),
        ("hooks: [{hookName: poststop, path: /h}]", None),
        ("mounts: [{hostPath: a, containerPath: /b, type: tmpfs}]", Some("mount /b of type \"tmpfs\"")),
        (
            "mounts: [{hostPath: /a, containerPath: /b, options: [idmap]}]",
            Some("option \"idmap\" of the mount /b"),
        ),
        ("netDevices: [{hostInterfaceName: eth1, name: net1}]", Some("network interface net1")),
    ] {
        assert_eq!(edits(text).unwrap().unsupported().as_deref(), want, "{text}");
    }
}

#[test]
fn descriptions_that_say_nothing_possible_are_left_out() {
    for (text, want) in [
        ("env: [A]", "invalid environment variable \"A\""),
        ("env: ['=b']", "invalid environment variable"),
        ("hooks: [{hookName: createContainer, path: h}]", "expected an absolute path"),
        ("hooks: [{hookName: createContainer, path: /h, env: [A]}]", "invalid environment variable"),
        ("hooks: [{hookName: createContainer, path: /h, timeout: 0}]", "timeout"),
        ("hooks: [{hookName: sometimes, path: /h}]", "sometimes"),
        ("hooks: [{hookName: poststop}]", "path"),
        ("deviceNodes: [{path: /dev/x, type: q}]", "type"),
        ("deviceNodes: [{path: /dev/x, permissions: rx}]", "permissions"),
        ("deviceNodes: [{hostPath: /dev/x}]", "a device node without a path"),
        ("mounts: [{hostPath: /a}]", "a mount without a path"),
        ("intelRdt: {closID: ../x}", "invalid closID"),
    ] {
        let problem = edits(text).unwrap_err();
        assert!(problem.contains(want), "{text}: {problem}");
    }
}

#[test]
fn hooks_and_permissions_are_read_as_they_are_written() {
    let given = edits(
        "hooks: [{hookName: createContainer, path: /usr/bin/h, args: [h, --link, 'a::b'], env: [D=], timeout: 5}], \
         deviceNodes: [{path: /dev/a, permissions: rm}, {path: /dev/b, permissions: ''}, {path: /dev/c, type: u}]",
    )
    .unwrap();
    let hook = &given.hooks[0];
    assert_eq!((hook.args.len(), hook.env.len(), hook.timeout.unwrap().get()), (3, 1, 5));
    let nodes = &given.device_nodes;
    assert_eq!(nodes[0].permissions, Permissions { read: true, write: false, mknod: true });
    assert_eq!(nodes[1].permissions, Permissions::default());
    assert_eq!((nodes[0].kind, nodes[2].kind), (None, Some(NodeKind::Char)));
}

proptest::proptest! {
    /// Whatever is in a file, the others are found.
    #[test]
    fn any_file_is_read_or_named(cut in 0..GPUS.len(), put in ".{0,12}|[&*!|>{}\\[\\]:\n -]{0,12}", skip in 0..40_usize) {
        let end = (cut + skip).min(GPUS.len());
        let odd = format!("{}{put}{}", &GPUS[..cut], &GPUS[end..]);
        let good = GPUS.replace("vendor1", "other");
        let (_dir, registry) = registry(&[("a/a.yaml", &odd), ("b/good.yaml", &good)], &[]);
        let devices = registry.scan();
        assert_eq!(names(&devices, "other.com/device=foo"), ["other.com/device=foo"]);
    }
}

/// One that refers to itself again and again would be gigabytes.
#[test]
fn a_file_that_grows_when_it_is_read_is_refused() {
    let mut bomb = String::from(
        "cdiVersion: \"0.6.0\"\nkind: a.b/c\nx0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n",
    );
    for n in 1..12 {
        let again = vec![format!("*x{}", n - 1); 9].join(", ");
        bomb.push_str(&format!("x{n}: &x{n} [{again}]\n"));
    }
    bomb.push_str("devices: *x11\n");
    let deep = format!("cdiVersion: {}", "[".repeat(200_000));
    let (_dir, registry) =
        registry(&[("a/bomb.yaml", &bomb), ("a/deep.yaml", &deep), ("a/gpus.yaml", GPUS)], &[]);
    let devices = registry.scan();
    assert_eq!(devices.problems.len(), 2, "{:?}", devices.problems);
    assert_eq!(names(&devices, "class1"), ["vendor1.com/device=foo"]);
}
