//! Automation: StartAutomationExecution with its ClientToken, and executions whose steps really
//! run on the simulated hosts, one after another.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::members::{Members, Refusal, is_uuid, page};
use super::nodes::with_token;
use super::script::{self, End};
use super::spec::{AutomationStep, Content};
use super::{Run, Shared, seconds, uuid};

/// An execution as the service keeps it.
pub(super) struct Execution {
    pub id: String,
    pub token: Option<String>,
    document: String,
    parameters: Vec<(String, Vec<String>)>,
    status: &'static str,
    failure: Option<String>,
    started: SystemTime,
    ended: Option<SystemTime>,
    steps: Vec<Step>,
    stopped: watch::Sender<bool>,
}

struct Step {
    id: String,
    about: AutomationStep,
    status: &'static str,
    started: Option<SystemTime>,
    ended: Option<SystemTime>,
    output: String,
    failure: Option<String>,
}

impl Step {
    fn shown(&self) -> Value {
        let mut shown = json!({
            "StepExecutionId": self.id, "StepName": self.about.name, "Action": self.about.action,
            "StepStatus": self.status, "Inputs": {}, "Outputs": {}, "OverriddenParameters": {},
            "TimeoutSeconds": 3600, "OnFailure": "Abort", "MaxAttempts": 1,
        });
        if let Some(map) = shown.as_object_mut() {
            for (name, time) in [("ExecutionStartTime", self.started), ("ExecutionEndTime", self.ended)] {
                if let Some(time) = time {
                    map.insert(name.to_owned(), json!(seconds(time)));
                }
            }
            if !self.output.is_empty() {
                map.insert("Outputs".to_owned(), json!({ "runCommand.Output": [self.output] }));
            }
            if let Some(failure) = &self.failure {
                map.insert("FailureMessage".to_owned(), json!(failure));
            }
        }
        shown
    }
}

pub(super) fn start(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members = Members::of(
        body,
        &[
            "DocumentName",
            "DocumentVersion",
            "Parameters",
            "ClientToken",
            "Mode",
            "TargetParameterName",
            "Targets",
            "TargetMaps",
            "MaxConcurrency",
            "MaxErrors",
            "TargetLocations",
            "Tags",
            "AlarmConfiguration",
            "TargetLocationsURL",
        ],
    )?;
    let name = members.required_text("DocumentName", 3, 256)?;
    let token = members.text("ClientToken", 36, 36)?;
    if let Some(wrong) = token.filter(|token| !is_uuid(token)) {
        return Err(Refusal::validation(format!("Value '{wrong}' at 'clientToken' is not a UUID")));
    }
    members.rate("MaxConcurrency")?;
    members.rate("MaxErrors")?;
    members.objects("Tags", 0, 5)?;
    let parameters = members.parameters("Parameters")?;
    let unknown = || Refusal::new("AutomationDefinitionNotFoundException", format!("{name} does not exist"));
    let document = shared.document(name).ok_or_else(unknown)?;
    let Content::Automation { steps } = &document.content else { return Err(unknown()) };
    let environment = super::commands::bound(document, &parameters)
        .map_err(|refusal| Refusal::new("InvalidAutomationExecutionParametersException", refusal.message))?;
    let id = uuid();
    let step = |about: &AutomationStep| Step {
        id: uuid(),
        about: about.clone(),
        status: "Pending",
        started: None,
        ended: None,
        output: String::new(),
        failure: None,
    };
    let execution = Execution {
        id: id.clone(),
        token: token.map(str::to_owned),
        document: name.to_owned(),
        parameters,
        status: "InProgress",
        failure: None,
        started: SystemTime::now(),
        ended: None,
        steps: steps.iter().map(step).collect(),
        stopped: watch::Sender::new(false),
    };
    let stopped = execution.stopped.subscribe();
    let scripts: Vec<AutomationStep> = steps.clone();
    {
        // Looked up and added under one lock: two calls with one token are one execution.
        let mut state = shared.state();
        let first = state.executions.iter().find(|one| token.is_some() && one.token.as_deref() == token);
        if let Some(first) = first {
            if first.document == name && first.parameters == execution.parameters {
                return Ok(json!({ "AutomationExecutionId": first.id }));
            }
            let message = "The client token was used already, with other parameters.";
            return Err(Refusal::new("IdempotentParameterMismatch", message));
        }
        state.executions.push(execution);
    }
    let task = Task { shared: Arc::clone(shared), id: id.clone(), environment, stopped };
    tokio::spawn(async move {
        let mut ended = task.shared.ended.subscribe();
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => {}
            () = task.carry_out(&scripts) => {}
        }
    });
    Ok(json!({ "AutomationExecutionId": id }))
}

struct Task {
    shared: Arc<Shared>,
    id: String,
    environment: Vec<(String, String)>,
    stopped: watch::Receiver<bool>,
}

impl Task {
    async fn carry_out(&self, steps: &[AutomationStep]) {
        for (at, step) in steps.iter().enumerate() {
            self.update(|execution| {
                if let Some(step) = execution.steps.get_mut(at) {
                    step.status = "InProgress";
                    step.started = Some(SystemTime::now());
                }
            });
            let began = Instant::now();
            let (end, output) = self.step(step).await;
            tokio::time::sleep(self.shared.options.step_pause.saturating_sub(began.elapsed())).await;
            let (status, failure) = match end {
                End::Exited(0) => ("Success", None),
                End::Exited(code) => (
                    "Failed",
                    Some(format!("Step fails when it is Execute/Cancelling action. exit status {code}")),
                ),
                End::TimedOut => ("TimedOut", Some("the step timed out".to_owned())),
                End::Stopped => ("Cancelled", None),
            };
            self.update(|execution| {
                if let Some(step) = execution.steps.get_mut(at) {
                    step.status = status;
                    step.ended = Some(SystemTime::now());
                    step.output = output;
                    step.failure.clone_from(&failure);
                }
            });
            if status != "Success" {
                return self.end(status, failure);
            }
        }
        self.end("Success", None);
    }

    fn end(&self, status: &'static str, failure: Option<String>) {
        self.update(|execution| {
            execution.status = status;
            execution.failure = failure;
            execution.ended = Some(SystemTime::now());
        });
    }

    fn update(&self, change: impl FnOnce(&mut Execution)) {
        if let Some(execution) = self.shared.state().executions.iter_mut().find(|one| one.id == self.id) {
            change(execution);
        }
        self.shared.touch();
    }

    async fn step(&self, step: &AutomationStep) -> (End, String) {
        if let Some(message) = self.shared.state().failing_steps.get(&step.name) {
            return (End::Exited(1), message.clone());
        }
        let instance = self.environment.iter().find(|(name, _)| name == "SSM_InstanceId");
        let instance = instance.map_or("", |(_, id)| id);
        let Some(host) = self.shared.host_of(instance).and_then(|at| self.shared.hosts.get(at)) else {
            return (End::Exited(1), format!("{instance} is not a managed node"));
        };
        let noted = self.shared.note_run(Run {
            command_id: self.id.clone(),
            host: host.spec.name.clone(),
            instance_id: instance.to_owned(),
            comment: step.name.clone(),
            script: step.script.clone(),
            started: SystemTime::now(),
            ended: None,
            exit: None,
        });
        let order = script::Order {
            script: &step.script,
            environment: &self.environment,
            working_directory: None,
            limit: Duration::from_secs(3600),
        };
        let mut stopped = self.stopped.clone();
        let stop = async {
            if stopped.wait_for(|stopped| *stopped).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let done = script::run(host, &order, stop).await;
        let (end, output) = match done {
            Ok(done) => (done.end, super::output::combined(&done.stdout, &done.stderr)),
            Err(error) => (End::Exited(127), format!("{error:#}")),
        };
        self.shared.end_run(noted, if let End::Exited(code) = end { Some(code) } else { None });
        (end, output)
    }
}

fn not_found(id: &str) -> Refusal {
    Refusal::new("AutomationExecutionNotFoundException", format!("{id} does not exist"))
}

pub(super) fn get(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members = Members::of(body, &["AutomationExecutionId"])?;
    let id = members.required_text("AutomationExecutionId", 36, 36)?;
    let state = shared.state();
    let one = state.executions.iter().find(|one| one.id == id).ok_or_else(|| not_found(id))?;
    let parameters: serde_json::Map<String, Value> =
        one.parameters.iter().map(|(name, values)| (name.clone(), json!(values))).collect();
    let mut shown = json!({
        "AutomationExecutionId": one.id, "DocumentName": one.document, "DocumentVersion": "1",
        "AutomationExecutionStatus": one.status, "ExecutionStartTime": seconds(one.started),
        "StepExecutions": one.steps.iter().map(Step::shown).collect::<Vec<_>>(), "StepExecutionsTruncated": false,
        "Parameters": parameters, "Outputs": {}, "Mode": "Auto",
        "ExecutedBy": "arn:aws:sts::111122223333:assumed-role/heal/heal", "Targets": [],
        "ResolvedTargets": { "ParameterValues": [], "Truncated": false },
    });
    if let Some(map) = shown.as_object_mut() {
        if let Some(step) = one.steps.iter().find(|step| step.status == "InProgress") {
            map.insert("CurrentStepName".to_owned(), json!(step.about.name));
            map.insert("CurrentAction".to_owned(), json!(step.about.action));
        }
        if let Some(ended) = one.ended {
            map.insert("ExecutionEndTime".to_owned(), json!(seconds(ended)));
        }
        if let Some(failure) = &one.failure {
            map.insert("FailureMessage".to_owned(), json!(failure));
        }
    }
    Ok(json!({ "AutomationExecution": shown }))
}

pub(super) fn steps(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members =
        Members::of(body, &["AutomationExecutionId", "Filters", "NextToken", "MaxResults", "ReverseOrder"])?;
    let id = members.required_text("AutomationExecutionId", 36, 36)?;
    let most = usize::try_from(members.number("MaxResults", 1, 50)?.unwrap_or(50)).unwrap_or(50);
    let reverse = members.flag("ReverseOrder")?;
    let state = shared.state();
    let one = state.executions.iter().find(|one| one.id == id).ok_or_else(|| not_found(id))?;
    // Steps that have not begun are not listed.
    let mut shown: Vec<Value> =
        one.steps.iter().filter(|step| step.started.is_some()).map(Step::shown).collect();
    if reverse {
        shown.reverse();
    }
    let (steps, next) =
        page("DescribeAutomationStepExecutions", shown, members.text("NextToken", 0, 4096)?, most)?;
    Ok(with_token(json!({ "StepExecutions": steps }), next))
}

pub(super) fn stop(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let members = Members::of(body, &["AutomationExecutionId", "Type"])?;
    let id = members.required_text("AutomationExecutionId", 36, 36)?;
    let state = shared.state();
    let one = state.executions.iter().find(|one| one.id == id).ok_or_else(|| not_found(id))?;
    one.stopped.send_replace(true);
    Ok(json!({}))
}
