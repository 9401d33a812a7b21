use super::super::markup::{plain, web_link};

#[test]
fn slack_markup_becomes_what_people_read() {
    for (raw, text) in [
        ("<http://web-012.prod.example.com|web-012.prod.example.com> up", "web-012.prod.example.com up"),
        ("<http://web-012.example.com:9100/|web-012.example.com:9100>", "web-012.example.com:9100"),
        ("see <https://wiki.example.com/5xx>", "see https://wiki.example.com/5xx"),
        ("<https://g.example.com/?a=1&amp;b=2|Grafana>", "Grafana"),
        (
            "<!channel> <!here|here> <@U1> <@U1|sato> <#C1|ops> <!subteam^S1|@sre>",
            "@channel here @U1 @sato #ops @sre",
        ),
        ("<mailto:a@example.com|a@example.com>", "a@example.com"),
        ("a &lt; b &amp;&amp; c &gt; d &amp;lt;", "a < b && c > d &lt;"),
        ("&lt;!channel&gt;", "<!channel>"),
        ("1 < 2 <", "1 < 2 <"),
        ("<>", "<>"),
        ("", ""),
    ] {
        assert_eq!(plain(raw).text, text, "{raw}");
    }
}

#[test]
fn links_that_slack_made_of_host_names_are_no_links() {
    let links = |raw| plain(raw).links;
    assert_eq!(
        links("<http://web-012.example.com|web-012.example.com> <https://wiki/x>"),
        ["https://wiki/x"]
    );
    assert_eq!(links("<https://g/?a=1&amp;b=2|Grafana>"), ["https://g/?a=1&b=2"]);
}

#[test]
fn only_web_addresses_are_links() {
    assert_eq!(web_link("https://a/b").as_deref(), Some("https://a/b"));
    for odd in ["javascript:alert(1)", "file:///etc/passwd", "https://a/ b", "https://a/\u{202e}b", ""] {
        assert_eq!(web_link(odd), None, "{odd}");
    }
}
