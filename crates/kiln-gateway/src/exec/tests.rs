use super::*;

fn request() -> gateway::NewContainerRequest {
    let mounts = vec![pb::Mount {
        dest: "/".into(),
        input: 7,
        output: 3,
        result_id: "r".into(),
        ..pb::Mount::default()
    }];
    gateway::NewContainerRequest { container_id: "../x\0".into(), mounts, ..Default::default() }
}

#[test]
fn inputs_and_outputs_of_mounts_mean_nothing() {
    let container = container_request(request()).unwrap();
    assert_eq!((container.mounts[0].input, container.mounts[0].output), (None, None));
    assert_eq!((container.mounts[0].result_id.as_str(), container.id.as_str()), ("r", "../x\0"));
}

#[test]
fn what_has_no_meaning_is_refused() {
    let with = |change: fn(&mut gateway::NewContainerRequest)| {
        let mut r = request();
        change(&mut r);
        container_request(r).unwrap_err().message().to_string()
    };
    assert_eq!(with(|r| r.network = 3), "invalid network mode 3");
    assert_eq!(with(|r| r.mounts[0].mount_type = 99), "invalid mount type 99");
    assert!(with(|r| r.mounts[0].mount_type = 3).contains("no cache mount options"));
    assert!(with(|r| r.mounts[0].dest.clear()).contains("mount destination"));
    let host = |r: &mut gateway::NewContainerRequest| {
        r.extra_hosts.push(pb::HostIp { host: "h".into(), ip: "1.2.3.4\nevil".into() });
    };
    assert!(with(host).starts_with("failed to parse IP"));
    assert!(mount_index(-1).is_err());
}
