use super::super::host::{guess, host_of, instance_id_in, is_instance_id};

#[test]
fn a_host_is_the_label_without_its_port() {
    for (label, host) in [
        ("web-012:9100", "web-012"),
        ("web-012.prod.example.com:9100", "web-012.prod.example.com"),
        ("web-012.prod.example.com.", "web-012.prod.example.com"),
        ("10.0.12.12:9100", "10.0.12.12"),
        ("[2001:db8::12]:9100", "2001:db8::12"),
        ("[2001:0db8:0::12]", "2001:db8::12"),
        ("2001:db8::12", "2001:db8::12"),
        ("i-0abc1234567890def", "i-0abc1234567890def"),
        (" web_1 ", "web_1"),
    ] {
        assert_eq!(host_of(label).as_deref(), Some(host), "{label}");
    }
}

#[test]
fn what_is_no_host_name_is_refused() {
    let long = "a".repeat(254);
    for label in [
        "",
        "-",
        "--",
        ".",
        "..",
        "web..012",
        "-rf",
        "web-012:http",
        "web-012:99999",
        "web-012:",
        ":9100",
        "a:b:c",
        "[web-012]:9100",
        "[::1]:9100x",
        "[2001:db8::12",
        "localhost:9100",
        "localhost.localdomain",
        "127.0.0.1:9100",
        "0.0.0.0",
        "::1",
        "web-012;reboot",
        "$(reboot)",
        "`id`",
        "{{ ssm:/prod/db }}",
        "https://web-012/",
        "web 012",
        "wеb-012",
        "web\u{200b}-012",
        "web-012\n",
        "*",
        "web/012",
        &long,
    ] {
        let refused = host_of(label);
        // White space around a label is not part of it.
        assert_eq!(refused.as_deref().filter(|_| label != "web-012\n"), None, "{label:?}");
    }
}

#[test]
fn instance_ids_are_told_by_their_shape() {
    for id in ["i-0abc1234567890def", "i-0abc1234", "mi-0123456789abcdef0"] {
        assert!(is_instance_id(id), "{id}");
    }
    for other in [
        "i-",
        "i-xyz12345",
        "i-0ABC1234567890DEF",
        "ami-0abc1234567890def",
        "i-0abc1234567890def0",
        "I-0abc1234",
    ] {
        assert!(!is_instance_id(other), "{other}");
    }
    let name = "i-0abc1234567890def.ap-northeast-1.compute.internal";
    assert_eq!(instance_id_in(name).as_deref(), Some("i-0abc1234567890def"));
    assert_eq!(instance_id_in("web-012"), None);
}

#[test]
fn a_host_is_guessed_only_when_one_value_can_be_it() {
    let host = |values: &[&str]| guess(values).map(|(host, _)| host);
    assert_eq!(host(&["web-012:9100", "node", "critical"]).as_deref(), Some("web-012"));
    assert_eq!(host(&["prod-01", "web-012:9100"]).as_deref(), Some("web-012"));
    assert_eq!(host(&["ap-northeast-1", "web-012"]).as_deref(), Some("web-012"));
    assert_eq!(host(&["10.0.12.12", "node"]).as_deref(), Some("10.0.12.12"));
    assert_eq!(host(&["web-012:9100", "web-012:8080"]).as_deref(), Some("web-012"));
    for ambiguous in [
        &["web-012:9100", "web-013:9100"][..],
        &["web-012", "web-013"],
        &["10.0.12.12", "10.0.12.13"],
        &["node", "critical", "monitoring/k8s", "payments-api-6d9f7c9b5-x2k4p", "12:30", "us-east-1"],
        &[],
    ] {
        assert_eq!(host(ambiguous), None, "{ambiguous:?}");
    }
}
