//! The two SSM clients on one connection pool: one that may repeat (reads), one that never does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;

use super::ask::Asking;

/// Times of one call. SSM answers within a second; ten tell an answer that will not come.
const CONNECT: Duration = Duration::from_secs(3);
const ATTEMPT: Duration = Duration::from_secs(10);
const OPERATION: Duration = Duration::from_secs(30);

/// SSM in one region. Cheap to clone; clones share connections and credentials.
#[derive(Clone, Debug)]
pub struct Ssm {
    /// Repeats what fails for a moment; for calls that change nothing.
    pub(super) reads: aws_sdk_ssm::Client,
    /// Makes one attempt and no other: `SendCommand`, `StartAutomationExecution`.
    pub(super) sends: aws_sdk_ssm::Client,
    pub(super) timing: Timing,
    /// Where shell runs made their fences on the hosts if nothing was kept of it with the run.
    pub(super) fence_dir: Arc<str>,
    pub(super) asking: Arc<Asking>,
}

/// How patiently an unclear sending is looked up, and the hosts are asked. Shorter on loopback.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Pauses before each look for what cannot be repeated; about 30 seconds in all.
    pub look_ups: [Duration; 6],
    /// Pauses before each look for a shell run, before it is sent once more; more are longer.
    pub fenced: [Duration; 3],
    /// Pause before what certainly was not sent is sent again.
    pub unsent: Duration,
    /// What a host has not answered by then it is asked anew.
    pub answer_within: Duration,
    /// A host that is still at it, or may still get the run, is asked again after this; then later.
    pub ask_again: Duration,
    /// The first and the longest rest of the poll when SSM throttles it.
    pub rest: (Duration, Duration),
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            look_ups: [500, 1000, 2500, 5000, 6000, 15_000].map(Duration::from_millis),
            fenced: [500, 1000, 2000].map(Duration::from_millis),
            unsent: Duration::from_secs(1),
            answer_within: Duration::from_secs(60),
            ask_again: Duration::from_secs(15),
            rest: (Duration::from_secs(1), Duration::from_secs(60)),
        }
    }
}

impl Ssm {
    /// Reads region, endpoints and where credentials come from, as every AWS tool does
    /// (`AWS_REGION`, profiles, `AWS_ENDPOINT_URL_SSM`). No network call; the credentials are got when first needed.
    pub async fn connect(region: Option<&str>) -> anyhow::Result<Ssm> {
        // Not the SDK's own region chain, which ends in a call to the metadata service of EC2.
        let region = match region {
            Some(region) => Region::new(region.to_owned()),
            None => RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(ProfileFileRegionProvider::new())
                .region()
                .await
                .context("no AWS region is given\nhint: set aws.region in heal.yaml, or AWS_REGION")?,
        };
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(OPERATION)
            .build();
        let shared = aws_config::defaults(BehaviorVersion::latest())
            .region(region)
            .http_client(http)
            .app_name(AppName::new("heal").context("the app name")?)
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .load()
            .await;
        Ok(Ssm::of(&shared))
    }

    /// How long a poll rests that SSM throttled so many times in a row: longer each time, and drawn, so
    /// that many do not come again together.
    pub(super) fn rest(&self, throttled: u32) -> Duration {
        let (first, longest) = self.timing.rest;
        if throttled == 0 {
            return Duration::ZERO;
        }
        let bound = first.saturating_mul(1 << throttled.min(16)).min(longest);
        bound / 2 + (bound / 2).mul_f64(fastrand::f64())
    }

    /// With the fences of shell rules under `dir`, an absolute path on the hosts.
    #[must_use]
    pub fn with_fence_dir(mut self, dir: &str) -> Ssm {
        self.fence_dir = dir.into();
        self
    }

    fn of(shared: &aws_config::SdkConfig) -> Ssm {
        let reads = aws_sdk_ssm::config::Builder::from(shared)
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .build();
        let sends = aws_sdk_ssm::config::Builder::from(shared).retry_config(RetryConfig::disabled()).build();
        Ssm {
            reads: aws_sdk_ssm::Client::from_conf(reads),
            sends: aws_sdk_ssm::Client::from_conf(sends),
            timing: Timing::default(),
            fence_dir: crate::plan::FENCE_DIR.into(),
            asking: Arc::default(),
        }
    }

    /// An emulator on this machine, with keys of its own: nothing is read from the environment, and
    /// nothing leaves the machine. Fails for any other host than 127.0.0.1.
    pub async fn on_loopback(endpoint: &str) -> anyhow::Result<Ssm> {
        let local = url::Url::parse(endpoint).is_ok_and(|url| url.host_str() == Some("127.0.0.1"));
        anyhow::ensure!(local, "{endpoint} is not on 127.0.0.1");
        let keys = aws_sdk_ssm::config::Credentials::new("AKIATEST", "secret", None, None, "test");
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(1))
            .operation_attempt_timeout(Duration::from_secs(2))
            .build();
        let shared = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("ap-northeast-1"))
            .endpoint_url(endpoint)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .timeout_config(timeouts)
            .credentials_provider(keys)
            .load()
            .await;
        let mut ssm = Ssm::of(&shared);
        ssm.timing = Timing {
            look_ups: [20; 6].map(Duration::from_millis),
            fenced: [20; 3].map(Duration::from_millis),
            unsent: Duration::from_millis(20),
            answer_within: Duration::from_secs(3),
            ask_again: Duration::from_millis(250),
            rest: (Duration::from_millis(100), Duration::from_secs(1)),
        };
        Ok(ssm)
    }
}
