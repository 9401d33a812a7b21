//! An SSM that answers at once: every node is online and every command has succeeded when it is asked for,
//! with the output that the bot's script prints.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;

use super::http::{Handler, Reply, Request};
use super::slack::text_of;

/// Nodes of a page of `DescribeInstanceInformation`, invocations of one of `ListCommandInvocations`
/// (API model: at most 50).
const PAGE: usize = 50;

/// The fleet.
pub struct Ssm {
    pages: Vec<String>,
    /// The invocations as JSON, in the order of their sending.
    invocations: RefCell<Vec<String>>,
    /// Commands sent to each node.
    pub commands: RefCell<Vec<u32>>,
    pub last_command: Cell<Option<Instant>>,
    /// Commands stay under way.
    pub holds: Cell<bool>,
    pub calls: Cell<u64>,
    pub last_call: Cell<Option<Instant>>,
}

/// The name of a node, as monitoring and SSM say it.
pub fn name(node: usize) -> String {
    format!("node-{node:05}")
}

fn instance_id(node: usize) -> String {
    format!("i-{node:017x}")
}

impl Ssm {
    pub fn new(nodes: usize) -> Ssm {
        let node = |node: usize| {
            format!(
                r#"{{"InstanceId":"{}","PingStatus":"Online","LastPingDateTime":1.79e9,"AgentVersion":"3.3.2746.0","PlatformType":"Linux","PlatformName":"Amazon Linux","PlatformVersion":"2023","ResourceType":"EC2Instance","IPAddress":"10.{}.{}.{}","ComputerName":"{}.example.internal"}}"#,
                instance_id(node),
                node / 65536 + 1,
                node / 256 % 256,
                node % 256,
                name(node)
            )
        };
        let all: Vec<usize> = (0..nodes).collect();
        let count = nodes.div_ceil(PAGE);
        let pages = all.chunks(PAGE).enumerate().map(|(number, chunk)| {
            let list: Vec<String> = chunk.iter().map(|one| node(*one)).collect();
            let next =
                if number + 1 < count { format!(r#","NextToken":"{}""#, number + 1) } else { String::new() };
            format!(r#"{{"InstanceInformationList":[{}]{next}}}"#, list.join(","))
        });
        Ssm {
            pages: pages.collect(),
            invocations: RefCell::default(),
            commands: RefCell::new(vec![0; nodes]),
            last_command: Cell::new(None),
            holds: Cell::new(false),
            calls: Cell::new(0),
            last_call: Cell::new(None),
        }
    }

    fn send(&self, body: &str) -> String {
        self.last_command.set(Some(Instant::now()));
        let node = text_of(body, "\"InstanceIds\":[\"i-").and_then(|id| usize::from_str_radix(id, 16).ok());
        let run = text_of(body, "\"Comment\":\"heal ").unwrap_or("unknown");
        let node = node.unwrap_or(usize::MAX);
        if let Some(count) = self.commands.borrow_mut().get_mut(node) {
            *count += 1;
        }
        let mut invocations = self.invocations.borrow_mut();
        let number = invocations.len();
        let id = format!("{number:08x}-0000-4000-8000-000000000000");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
        let output = format!(
            "heal/1 run={run} end=done\\nheal/1 step=1 kind=confirm exit=0 ms=2\\nheal/1 step=2 kind=command exit=0 ms=31\\nheal/1 step=3 kind=verify exit=0 ms=2\\nheal/1 {run} output of step=2\\nrestarted\\n\\nheal/1 {run} end\\n"
        );
        invocations.push(format!(
            r#"{{"CommandId":"{id}","InstanceId":"{instance}","Comment":"heal {run}","DocumentName":"AWS-RunShellScript","DocumentVersion":"$DEFAULT","RequestedDateTime":{now:.3},"Status":"Success","StatusDetails":"Success","StandardOutputUrl":"","StandardErrorUrl":"","CommandPlugins":[{{"Name":"aws:runShellScript","Status":"Success","StatusDetails":"Success","ResponseCode":0,"ResponseStartDateTime":{now:.3},"ResponseFinishDateTime":{now:.3},"Output":"{output}"}}],"ServiceRole":""}}"#,
            instance = instance_id(node),
        ));
        format!(
            r#"{{"Command":{{"CommandId":"{id}","Comment":"heal {run}","DocumentName":"AWS-RunShellScript","Status":"Pending","StatusDetails":"Pending","TargetCount":1,"CompletedCount":0,"ErrorCount":0,"RequestedDateTime":{now:.3}}}}}"#
        )
    }

    /// An invocation as it stands.
    fn shown<'a>(&self, invocation: &'a str) -> Cow<'a, str> {
        let plugins = invocation.find("\"CommandPlugins\":[").filter(|_| self.holds.get());
        match plugins {
            Some(at) => {
                let head = invocation[..at].replace("\"Success\"", "\"InProgress\"");
                format!("{head}\"CommandPlugins\":[]}}").into()
            }
            None => invocation.into(),
        }
    }

    /// One command's, or a page of all, the newest first.
    fn list(&self, body: &str) -> String {
        let invocations = self.invocations.borrow();
        let before = match text_of(body, "\"CommandId\":\"") {
            Some(id) => {
                let one = number_of(id).and_then(|number| invocations.get(number));
                return format!(
                    r#"{{"CommandInvocations":[{}]}}"#,
                    one.map_or("".into(), |one| self.shown(one))
                );
            }
            None => text_of(body, "\"NextToken\":\"").and_then(|token| token.parse().ok()),
        };
        let before = before.unwrap_or(invocations.len()).min(invocations.len());
        let from = before.saturating_sub(PAGE);
        let list: Vec<Cow<'_, str>> =
            invocations[from..before].iter().rev().map(|one| self.shown(one)).collect();
        let next = if from > 0 { format!(r#","NextToken":"{from}""#) } else { String::new() };
        format!(r#"{{"CommandInvocations":[{}]{next}}}"#, list.join(","))
    }
}

/// A command's number, out of its id.
fn number_of(id: &str) -> Option<usize> {
    usize::from_str_radix(id.get(..8)?, 16).ok()
}

impl Handler for Ssm {
    fn answer(&self, request: &Request<'_>) -> Reply {
        self.calls.set(self.calls.get() + 1);
        self.last_call.set(Some(Instant::now()));
        let action = request.header("x-amz-target").and_then(|target| target.split('.').nth(1));
        Reply::Json(match action {
            Some("DescribeInstanceInformation") => {
                let page = text_of(request.body, "\"NextToken\":\"").and_then(|token| token.parse().ok());
                let page = self.pages.get(page.unwrap_or(0_usize));
                page.map_or_else(|| r#"{"InstanceInformationList":[]}"#.to_owned(), String::clone)
            }
            Some("SendCommand") => self.send(request.body),
            Some("ListCommandInvocations") => self.list(request.body),
            Some("GetCommandInvocation") => {
                r#"{"Status":"Success","StatusDetails":"Success","ResponseCode":0,"StandardOutputContent":"","StandardErrorContent":""}"#.to_owned()
            }
            _ => "{}".to_owned(),
        })
    }

    fn upgraded(self: Rc<Self>, _stream: TcpStream) {}
}
