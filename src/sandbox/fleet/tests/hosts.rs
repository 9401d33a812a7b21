//! Hosts: their processes, disks and paths.

use super::*;

#[tokio::test]
async fn absolute_paths_of_a_script_stay_in_the_hosts_folder_and_read_as_absolute_ones() {
    let (fleet, client, id) = one_host().await;
    let script =
        "mkdir -p /var/lib/heal && echo kept >/var/lib/heal/x && ls '/var/lib/heal' && echo /var/lib/heal/x";
    let command = send(&client, &id, "", script).await.unwrap();
    let seen = followed(&fleet, &client, &command, &id).await;
    assert_eq!(seen.standard_output_content(), Some("x\n/var/lib/heal/x\n"));
    let root = fleet.host("web-1").unwrap().root();
    assert_eq!(std::fs::read_to_string(root.join("var/lib/heal/x")).unwrap(), "kept\n");
}

#[tokio::test]
async fn only_paths_are_redirected_and_not_what_looks_like_one() {
    let (fleet, ..) = one_host().await;
    let host = fleet.host("web-1").unwrap();
    let root = host.root().to_str().unwrap();
    for (script, wanted) in [
        ("export MOUNT='/var/log/app'", format!("export MOUNT='{root}/var/log/app'")),
        (
            "for d in /run /var/lib /var/tmp; do",
            format!("for d in {root}/run {root}/var/lib {root}/var/tmp; do"),
        ),
        ("case \"$MOUNT\" in /var/log/*) ;;", format!("case \"$MOUNT\" in {root}/var/log/*) ;;")),
        ("awk '/run/ { print }'", "awk '/run/ { print }'".to_owned()),
        (
            "ls $X/var/log ${Y}/var/log /tmp/var/log /variable",
            "ls $X/var/log ${Y}/var/log /tmp/var/log /variable".to_owned(),
        ),
        ("curl http://x/run http://y/var/log", "curl http://x/run http://y/var/log".to_owned()),
    ] {
        let inward = host.inward(script);
        assert_eq!(inward, wanted);
        assert_eq!(host.outward(&inward), script);
    }
}

#[tokio::test]
async fn a_script_that_still_runs_ends_with_its_fleet() {
    let (fleet, client, id) = one_host().await;
    send(&client, &id, "", "echo $$ >/var/run/pid; sleep 300").await.unwrap();
    let file = fleet.host("web-1").unwrap().root().join("var/run/pid");
    let pid = || std::fs::read_to_string(&file).ok().and_then(|pid| pid.trim().parse::<u32>().ok());
    assert!(fleet.wait_until(SOON, |_| pid().is_some()).await);
    let pid = pid().unwrap();
    fleet.stop();
    let gone =
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    assert!(fleet.wait_until(SOON, |_| gone()).await);
    assert!(!file.exists());
}

#[tokio::test]
async fn services_really_stop_hang_restart_and_fail_to() {
    let (fleet, client, id) =
        fleet_of(Options::of(vec![HostSpec::new("web-1", "web").service("nginx")])).await;
    let host = fleet.host("web-1").unwrap();
    let ProcessState::Running { pid } = host.process("nginx") else { panic!("nginx runs from the start") };
    fleet.act("web-1", "stop-nginx").await.unwrap();
    assert_eq!(host.process("nginx"), ProcessState::Gone);
    let script = "systemctl is-active nginx; systemctl restart nginx && systemctl is-active --quiet nginx && pgrep -x nginx";
    let command = send(&client, &id, "", script).await.unwrap();
    let seen = followed(&fleet, &client, &command, &id).await;
    let ProcessState::Running { pid: new } = host.process("nginx") else { panic!("nginx was restarted") };
    assert_ne!(pid, new);
    assert_eq!(seen.standard_output_content(), Some(format!("inactive\n{new}\n").as_str()));

    fleet.act("web-1", "wedge-nginx").await.unwrap();
    assert!(matches!(host.process("nginx"), ProcessState::Stopped { .. }));
    fleet.act("web-1", "break-restart-nginx").await.unwrap();
    let command = send(&client, &id, "", "service nginx restart").await.unwrap();
    assert_eq!(followed(&fleet, &client, &command, &id).await.response_code(), 1);
    assert_eq!(host.process("nginx"), ProcessState::Gone);
    fleet.act("web-1", "mend-restart-nginx").await.unwrap();
    fleet.act("web-1", "start-nginx").await.unwrap();
    let ProcessState::Running { pid } = host.process("nginx") else { panic!("nginx was started") };
    let root = host.root().to_owned();
    fleet.stop();
    assert!(!root.exists());
    let gone =
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    assert!(fleet.wait_until(SOON, |_| gone()).await);
}

#[tokio::test]
async fn a_disk_fills_and_df_tells_of_it_on_the_host_and_off() {
    let (fleet, client, id) =
        fleet_of(Options::of(vec![HostSpec::new("db-1", "db").disk("/var/log/app", 1000)])).await;
    let host = fleet.host("db-1").unwrap();
    assert_eq!(host.disk_percent("/var/log/app"), Some(20));
    fleet.act("db-1", "fill-var-log-app").await.unwrap();
    assert_eq!(host.disk_percent("/var/log/app"), Some(97));
    let script = "MOUNT='/var/log/app'; df --output=pcent \"$MOUNT\" | tail -n 1; df -P \"$MOUNT\" | tail -n 1; df -P / | wc -l
        find \"$MOUNT\" -xdev -type f -name '*.gz' -mtime +1 -delete; df --output=pcent \"$MOUNT\" | tail -n 1";
    let command = send(&client, &id, "", script).await.unwrap();
    let seen = followed(&fleet, &client, &command, &id).await;
    let lines: Vec<Vec<&str>> = seen
        .standard_output_content()
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["97%"]);
    assert_eq!((lines[1][4], lines[1][5]), ("97%", "/var/log/app"));
    assert_eq!((&lines[2], &lines[3]), (&vec!["2"], &vec!["20%"]));
}

#[tokio::test]
async fn the_panel_shows_what_is_broken_and_offers_what_can_be_done() {
    let fleet = Fleet::start(Options::default()).await.unwrap();
    let of = |name: &str| fleet.hosts().into_iter().find(|host| host.name == name).unwrap();
    assert!(fleet.hosts().iter().all(|host| host.lines.iter().all(|line| line.ok)), "{:#?}", fleet.hosts());
    for host in fleet.hosts() {
        for action in &host.actions {
            let words =
                action.id.chars().all(|letter| letter.is_ascii_lowercase() || "-0123456789".contains(letter));
            assert!(words, "{}", action.id);
        }
    }
    fleet.act("app-1", "stop-foo-process").await.unwrap();
    fleet.act("db-1", "lag-replica").await.unwrap();
    assert_eq!(of("app-1").lines[0].detail, "stopped");
    assert_eq!(of("app-1").actions[0].id, "start-foo-process");
    assert!(!of("db-1").lines[1].ok);
    assert!(fleet.act("app-1", "stop-nginx").await.is_err());
    assert!(fleet.act("app-1", "explode").await.is_err());
}
