//! A request in the client's terms.

use super::{args, plan};
use crate::build::plan::{Plan, Unsaid};
use crate::build::request::{StdinInputs, request};
use crate::stdin::StdinDockerfile;
use kiln_client::{BuildRequest, Output, SecretOrigin, Work};

fn convert(flags: &[&str]) -> BuildRequest {
    request(plan(flags).unwrap(), StdinInputs { head: Vec::new(), dockerfile: None }, None).unwrap()
}

fn attrs(request: &BuildRequest) -> &std::collections::BTreeMap<String, String> {
    match &request.work {
        Work::Frontend { name, attrs, .. } => {
            assert_eq!(name, "dockerfile.v0");
            attrs
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let request =
        convert(&["-o", "type=tar,dest=x.tar", "--secret", "id=a,src=b", "--allow", "network.host", path]);
    assert_eq!(request.local_dirs["context"].path, dir.path());
    assert_eq!(request.local_dirs["dockerfile"].path, dir.path());
    assert!(request.shared_key.starts_with(dir.path().file_name().unwrap().to_str().unwrap()));
    assert!(matches!(&request.exports[0].output, Output::File(p) if p.to_str() == Some("x.tar")));
    assert!(matches!(&request.secrets[0].origin, SecretOrigin::File(p) if p.to_str() == Some("b")));
    assert_eq!(request.entitlements, ["network.host"]);
    let again = convert(&[path]);
    assert_eq!(again.shared_key, request.shared_key);
}

#[test]
fn secrets_of_variables_that_are_not_set() {
    let plan = plan(&["--secret", "id=a,env=KILN_TEST_NEVER_SET", "."]).unwrap();
    let error = request(plan, StdinInputs { head: Vec::new(), dockerfile: None }, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid value 'id=a,env=KILN_TEST_NEVER_SET' for --secret: the environment has no variable KILN_TEST_NEVER_SET"
    );
}

#[test]
fn an_archive_from_stdin_is_uploaded() {
    let head = vec![0x1f, 0x8b, 8, 0];
    let plan = Plan::new(&args(&["-"]), &super::vars, &Unsaid::Keep, || Ok(head.clone())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _guard = runtime.enter();
    let request = request(plan, StdinInputs { head, dockerfile: None }, None).unwrap();
    assert_eq!((request.uploads.len(), request.local_dirs.len()), (1, 0));
    assert_eq!(attrs(&request)["context"], request.uploads[0].url());
}

#[test]
fn a_dockerfile_from_stdin_has_an_empty_context() {
    let plan =
        Plan::new(&args(&["-"]), &super::vars, &Unsaid::Keep, || Ok(b"FROM scratch".to_vec())).unwrap();
    let files = StdinDockerfile::write(b"FROM scratch", true).unwrap();
    let inputs = StdinInputs { head: Vec::new(), dockerfile: Some(&files) };
    let request = request(plan, inputs, None).unwrap();
    let dir = request.local_dirs["dockerfile"].path.clone();
    assert_eq!(std::fs::read(dir.join("Dockerfile")).unwrap(), b"FROM scratch");
    assert_eq!(std::fs::read_dir(&request.local_dirs["context"].path).unwrap().count(), 0);
    assert_eq!(attrs(&request)["dockerfilekey"], "dockerfile");
    drop(files);
    assert!(!dir.exists());
}
