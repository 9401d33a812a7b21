use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Call, Done, Job, Options, Priority, Queue};
use crate::slack::fake::{Fake, Reply, within};
use crate::slack::{Error, Metadata, Post, Text};

struct World {
    fake: Fake,
    queue: Queue,
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
}

fn quick(at_once: usize) -> Options {
    let backoff = (Duration::from_millis(20), Duration::from_millis(100));
    Options { at_once, backoff, ..Options::default() }
}

impl World {
    async fn start(at_once: usize) -> World {
        World::with(Fake::start().await, quick(at_once))
    }

    fn with(fake: Fake, options: Options) -> World {
        let (stop, stopped) = watch::channel(false);
        let (queue, run) = Queue::new(fake.client(), options, stopped);
        World { fake, queue, stop, running: tokio::spawn(run) }
    }

    /// The texts that reached Slack, in order.
    fn said(&self, method: &str) -> Vec<String> {
        let calls = self.fake.calls(method);
        calls.iter().map(|call| call.body["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    async fn until_called(&self, method: &str, times: usize) {
        within(async {
            while self.fake.calls(method).len() < times {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn text(text: &str) -> Text {
    Text { text: text.into(), blocks: Default::default() }
}

fn post_to(channel: &str, said: &str) -> Call {
    Call::Post(Post {
        channel: channel.into(),
        thread_ts: Some("1795133413.000001".into()),
        text: text(said),
        metadata: Some(Metadata { event_type: "heal".into(), payload: json!({"run": said}) }),
    })
}

fn post(said: &str) -> Job {
    Job::new(post_to("C1", said), Priority::Report)
}

fn update(said: &str) -> Job {
    Job::new(Call::Update { channel: "C1".into(), ts: "1.000001".into(), text: text(said) }, Priority::Report)
}

fn sent(ts: &str) -> Done {
    Done::Sent { ts: Some(ts.into()) }
}

#[tokio::test]
async fn a_post_whose_answer_was_lost_is_looked_up_and_not_doubled() {
    let world = World::start(8).await;
    world.fake.script("chat.postMessage", [Reply::Lost, Reply::Hangs]);
    assert_eq!(within(world.queue.submit(post("one"))).await, sent("1795133413.000001"));
    assert_eq!(within(world.queue.submit(post("two"))).await, sent("1795133413.000002"));
    assert_eq!(world.fake.messages().len(), 2);
    assert_eq!(world.fake.calls("chat.postMessage").len(), 2);
}

/// Cause: a post that Slack was slow with was looked for, not found, and made again; then the first landed.
#[tokio::test]
async fn a_post_that_lands_long_after_its_time_out_is_not_doubled() {
    let world = World::start(8).await;
    world.fake.script("chat.postMessage", [Reply::Lands(Duration::from_millis(3000))]);
    assert_eq!(within(world.queue.submit(post("one"))).await, sent("1795133413.000001"));
    assert_eq!(world.fake.calls("chat.postMessage").len(), 1);
    assert_eq!(world.fake.messages().len(), 1);
}

#[tokio::test]
async fn a_failed_search_never_leads_to_a_blind_repeat() {
    let world = World::start(8).await;
    world.fake.script("chat.postMessage", [Reply::Lost]);
    world.fake.script("conversations.replies", [Reply::Status(500), Reply::Limited(1)]);
    assert_eq!(within(world.queue.submit(post("one"))).await, sent("1795133413.000001"));
    assert_eq!(world.fake.messages().len(), 1);

    world.fake.script("chat.postMessage", [Reply::Lost]);
    world.fake.script("conversations.replies", [Reply::Json(json!({"ok": false, "error": "missing_scope"}))]);
    let Done::GaveUp(error) = within(world.queue.submit(post("two"))).await else { panic!("it was sent") };
    assert!(error.needs_person(), "{error}");
    let lines = world.queue.troubles().lines();
    assert!(
        lines[0].starts_with("conversations.replies in C1: Slack refused: missing_scope; hint: "),
        "{lines:?}"
    );
    // The person does so, and the next try finds the first one's post.
    assert_eq!(within(world.queue.submit(post("two").maybe_done())).await, sent("1795133413.000002"));
    assert_eq!(world.fake.messages().len(), 2);
    assert!(world.queue.troubles().lines().is_empty());

    world.fake.script("chat.postMessage", [Reply::Lost]);
    world
        .fake
        .script("conversations.replies", [Reply::Json(json!({"ok": false, "error": "invalid_arguments"}))]);
    let done = within(world.queue.submit(post("three"))).await;
    assert!(matches!(done, Done::GaveUp(Error::Unclear { .. })), "it may stand there: {done:?}");
}

#[tokio::test]
async fn in_a_thread_that_is_gone_a_post_is_looked_for_at_the_top_and_made_where_it_is_not() {
    let world = World::start(8).await;
    let gone = || Reply::Json(json!({"ok": false, "error": "thread_not_found"}));
    world.fake.script("chat.postMessage", [Reply::Status(500), Reply::Lost]);
    world.fake.script("conversations.replies", [gone(), gone()]);
    assert_eq!(within(world.queue.submit(post("one"))).await, sent("1795133413.000001"));
    assert_eq!(world.fake.messages().len(), 1);
    assert_eq!(world.fake.calls("conversations.history").len(), 2);
    assert_eq!(world.fake.calls("chat.postMessage").len(), 2);
}

#[tokio::test]
async fn a_post_that_was_not_done_is_made_again_once_searched_for() {
    let world = World::start(8).await;
    world.fake.script("chat.postMessage", [Reply::Status(500), Reply::Status(502)]);
    assert_eq!(within(world.queue.submit(post("one"))).await, sent("1795133413.000001"));
    assert_eq!(world.fake.calls("chat.postMessage").len(), 3);
    assert_eq!(world.fake.calls("conversations.replies").len(), 2);
}

#[tokio::test]
async fn what_may_have_been_posted_before_a_restart_is_searched_for_first() {
    let world = World::start(8).await;
    within(world.queue.submit(post("one"))).await;
    assert_eq!(within(world.queue.submit(post("one").maybe_done())).await, sent("1795133413.000001"));
    assert_eq!(world.fake.messages().len(), 1);
}

#[tokio::test]
async fn a_post_without_metadata_is_given_up_when_unclear() {
    let world = World::start(8).await;
    world.fake.script("chat.postMessage", [Reply::Lost]);
    let bare = Call::Post(Post { channel: "C1".into(), text: text("one"), ..Post::default() });
    let done = within(world.queue.submit(Job::new(bare, Priority::Report))).await;
    assert!(matches!(done, Done::GaveUp(Error::Unclear { .. })), "{done:?}");
    assert_eq!(world.fake.messages().len(), 1);
}

#[tokio::test]
async fn a_429_holds_its_own_method_and_channel_for_exactly_as_long_as_told() {
    let world = World::start(8).await;
    world.fake.script("chat.postMessage", [Reply::Limited(1)]);
    let limited = world.queue.submit(post("one"));
    world.until_called("chat.postMessage", 1).await;
    // Another channel and another method go on meanwhile.
    let other = world.queue.submit(Job::new(post_to("C2", "two"), Priority::Report));
    let update = world.queue.submit(update("three"));
    within(other).await;
    within(update).await;
    let later = world.queue.submit(post("four"));
    assert_eq!(world.said("chat.postMessage"), ["one", "two"]);
    within(limited).await;
    within(later).await;
    let calls = world.fake.calls("chat.postMessage");
    assert_eq!(world.said("chat.postMessage"), ["one", "two", "one", "four"]);
    let waited = calls[2].at - calls[0].at;
    assert!(waited >= Duration::from_millis(1000), "{waited:?}");
    assert!(waited < Duration::from_millis(3000), "{waited:?}");
}

#[tokio::test]
async fn only_the_newest_of_waiting_updates_is_sent() {
    let world = World::start(1).await;
    world.fake.delay(Duration::from_millis(100));
    let blocker = world.queue.submit(post("first"));
    world.until_called("chat.postMessage", 1).await;
    let old = world.queue.submit(update("old").merging("m1"));
    let newer = world.queue.submit(update("newer").merging("m1"));
    let another = world.queue.submit(update("another").merging("m2"));
    let newest = world.queue.submit(update("newest").merging("m1"));
    assert_eq!(within(old).await, Done::Superseded);
    assert_eq!(within(newer).await, Done::Superseded);
    within(blocker).await;
    assert_eq!(within(newest).await, Done::Sent { ts: None });
    within(another).await;
    assert_eq!(world.said("chat.update"), ["newest", "another"]);
}

#[tokio::test]
async fn an_update_under_way_is_followed_and_not_replaced() {
    let world = World::start(4).await;
    world.fake.delay(Duration::from_millis(100));
    let first = world.queue.submit(update("first").merging("m1").in_order(1));
    world.until_called("chat.update", 1).await;
    let second = world.queue.submit(update("second").merging("m1").in_order(1));
    let third = world.queue.submit(update("third").merging("m1").in_order(1));
    assert_eq!(within(first).await, Done::Sent { ts: None });
    assert_eq!(within(second).await, Done::Superseded);
    assert_eq!(within(third).await, Done::Sent { ts: None });
    assert_eq!(world.said("chat.update"), ["first", "third"]);
}

#[tokio::test]
async fn jobs_of_one_key_run_in_order_even_past_failures() {
    let world = World::start(8).await;
    world.fake.script("chat.postMessage", [Reply::Status(500)]);
    let one = world.queue.submit(post("one").in_order(7));
    let two = world.queue.submit(post("two").in_order(7));
    let three = world.queue.submit(update("three").in_order(7));
    within(three).await;
    within(one).await;
    within(two).await;
    assert_eq!(world.said("chat.postMessage"), ["one", "one", "two"]);
    let posts = world.fake.calls("chat.postMessage");
    assert!(world.fake.calls("chat.update")[0].at > posts[2].at);
}

#[tokio::test]
async fn the_urgent_go_first_and_channels_take_turns() {
    let world = World::start(1).await;
    world.fake.delay(Duration::from_millis(50));
    let mut waiting = vec![world.queue.submit(post("blocker"))];
    world.until_called("chat.postMessage", 1).await;
    for said in ["a1", "a2", "a3"] {
        waiting.push(world.queue.submit(post(said)));
    }
    waiting.push(world.queue.submit(Job::new(post_to("C2", "b1"), Priority::Reaction)));
    waiting.push(world.queue.submit(Job::new(post_to("C1", "urgent"), Priority::People)));
    for one in waiting {
        within(one).await;
    }
    let said = world.said("chat.postMessage");
    let place = |wanted: &str| said.iter().position(|one| one == wanted).unwrap();
    assert!(place("urgent") < place("a1"), "{said:?}");
    assert!(place("b1") < place("a2"), "{said:?}");
    assert!(place("a1") < place("a2") && place("a2") < place("a3"), "{said:?}");
}

#[tokio::test]
async fn a_refusal_ends_a_job_at_once_and_the_next_of_its_key_goes_on() {
    let world = World::start(8).await;
    world.fake.script("chat.postMessage", [Reply::Json(json!({"ok": false, "error": "not_in_channel"}))]);
    let refused = world.queue.submit(post("one").in_order(1));
    let next = world.queue.submit(post("two").in_order(1));
    let Done::GaveUp(error) = within(refused).await else { panic!("it was not given up") };
    assert_eq!(error.code(), Some("not_in_channel"));
    assert!(error.hint().unwrap().contains("/invite"));
    within(next).await;
    assert_eq!(world.said("chat.postMessage"), ["one", "two"]);
}

#[tokio::test]
async fn a_thousand_jobs_are_sent_once_each_and_never_too_many_at_once() {
    let world = World::start(32).await;
    let waiting: Vec<_> = (0..1000)
        .map(|number| world.queue.submit(post(&format!("m{number}")).in_order(number % 100)))
        .collect();
    for one in waiting {
        assert!(matches!(within(one).await, Done::Sent { .. }));
    }
    let mut said = world.said("chat.postMessage");
    said.sort_unstable();
    said.dedup();
    assert_eq!(said.len(), 1000);
    assert_eq!(world.fake.messages().len(), 1000);
    assert!(world.fake.most_under_way() <= 32);
}

#[tokio::test]
async fn stopping_waits_for_what_is_under_way_and_gives_the_rest_back() {
    let world = World::start(1).await;
    world.fake.delay(Duration::from_millis(200));
    let under_way = world.queue.submit(post("one"));
    let waiting = world.queue.submit(post("two"));
    world.until_called("chat.postMessage", 1).await;
    world.stop.send(true).unwrap();
    assert!(matches!(within(under_way).await, Done::Sent { .. }));
    assert!(matches!(within(waiting).await, Done::GaveUp(Error::NotDone { .. })));
    within(world.running).await.unwrap();
    assert!(matches!(within(world.queue.submit(post("three"))).await, Done::GaveUp(Error::NotDone { .. })));
    assert_eq!(world.fake.messages().len(), 1);
}

#[tokio::test]
async fn an_outage_is_probed_and_not_stormed_and_everything_is_sent_after_it() {
    let world = World::start(4).await;
    world.fake.script("chat.postMessage", (0..12).map(|_| Reply::Status(503)));
    let began = Instant::now();
    let waiting: Vec<_> = (0..200).map(|number| world.queue.submit(post(&format!("m{number}")))).collect();
    for one in waiting {
        assert!(matches!(within(one).await, Done::Sent { .. }));
    }
    assert_eq!(world.fake.messages().len(), 200);
    // Four at once at first, then one by one with growing rests of up to 100 ms.
    let calls = world.fake.calls("chat.postMessage");
    assert!(calls[11].at - began >= Duration::from_millis(200), "{:?}", calls[11].at - began);
}

#[tokio::test]
async fn a_limit_of_updates_holds_in_every_channel_to_the_second() {
    let world = World::start(8).await;
    world.fake.script("chat.update", [Reply::Limited(1)]);
    let update = |channel: &str, said: &str| {
        let call = Call::Update { channel: channel.into(), ts: "1.000001".into(), text: text(said) };
        world.queue.submit(Job::new(call, Priority::Report))
    };
    let limited = update("C1", "one");
    world.until_called("chat.update", 1).await;
    within(world.queue.submit(post("meanwhile"))).await;
    let others = [update("C2", "two"), update("C3", "three")];
    within(limited).await;
    for other in others {
        within(other).await;
    }
    let calls = world.fake.calls("chat.update");
    assert_eq!(calls.len(), 4);
    for later in &calls[1..] {
        assert!(later.at - calls[0].at >= Duration::from_secs(1), "{:?}", later.at - calls[0].at);
    }
    // And not all in the same instant.
    assert!(calls[3].at - calls[1].at >= Duration::from_millis(500), "{:?}", calls[3].at - calls[1].at);
}

#[tokio::test]
async fn a_limited_search_is_asked_by_nobody_before_its_time_and_holds_up_nothing_else() {
    let world = World::start(8).await;
    world.fake.script("conversations.replies", [Reply::Limited(1)]);
    let doubtful = |channel: &str, said: &str| {
        world.queue.submit(Job::new(post_to(channel, said), Priority::Report).maybe_done())
    };
    let mut met = world.queue.limits();
    let first = doubtful("C1", "one");
    assert_eq!(within(met.recv()).await.unwrap().method, "conversations.replies");
    let more = [doubtful("C1", "two"), doubtful("C2", "three")];
    within(world.queue.submit(post("plain"))).await;
    assert_eq!(world.said("chat.postMessage"), ["plain"]);
    within(first).await;
    for one in more {
        within(one).await;
    }
    let calls = world.fake.calls("conversations.replies");
    assert!(calls[1].at - calls[0].at >= Duration::from_secs(1), "{:?}", calls[1].at - calls[0].at);
    assert_eq!(world.fake.messages().len(), 4);
}

/// Two processes with one token: what one meets the other is told, as a database would tell it.
#[tokio::test]
async fn two_queues_keep_one_limit_and_do_not_come_back_together() {
    let one = World::start(2).await;
    let (stop, stopped) = watch::channel(false);
    let (other, run) = Queue::new(one.fake.client(), quick(2), stopped);
    tokio::spawn(run);
    for (from, to) in [(&one.queue, &other), (&other, &one.queue)] {
        let (mut met, to) = (from.limits(), to.clone());
        tokio::spawn(async move {
            while let Ok(limited) = met.recv().await {
                to.limit(&limited);
            }
        });
    }
    one.fake.be_strict("chat.update", Duration::from_millis(400));
    let update = |queue: &Queue, number: usize| {
        let call =
            Call::Update { channel: "C1".into(), ts: format!("{number}.000001"), text: text("it is so") };
        queue.submit(Job::new(call, Priority::Report))
    };
    let waiting: Vec<_> = (0..4).flat_map(|n| [update(&one.queue, n), update(&other, 10 + n)]).collect();
    for done in waiting {
        let done = tokio::time::timeout(Duration::from_secs(40), done).await.unwrap();
        assert_eq!(done, Done::Sent { ts: None });
    }
    let (too_soon, refused) = one.fake.impatience("chat.update");
    assert_eq!(too_soon, 0, "a call was made before Retry-After was over");
    // Of those under way at first all but one are told to wait, and afterwards hardly any.
    assert!(refused <= 3 + 5, "{refused} calls were told to wait");
    stop.send(true).unwrap();
}

#[tokio::test]
async fn nothing_but_answers_to_people_is_begun_while_sending_is_not_allowed() {
    let may = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&may);
    let may_send: super::MaySend = Arc::new(move || asked.load(Ordering::SeqCst));
    let world = World::with(Fake::start().await, Options { may_send: Some(may_send), ..quick(8) });
    let waits = world.queue.submit(post("report"));
    let ephemeral =
        Call::Ephemeral { channel: "C1".into(), user: "U1".into(), thread_ts: None, text: text("no") };
    within(world.queue.submit(Job::new(ephemeral, Priority::People))).await;
    let doubtful = world.queue.submit(post("doubtful").maybe_done());
    assert!(world.fake.calls("chat.postMessage").is_empty());
    assert!(world.fake.calls("conversations.replies").is_empty());
    may.store(true, Ordering::SeqCst);
    within(waits).await;
    within(doubtful).await;
    assert_eq!(world.said("chat.postMessage").len(), 2);
}

/// The search before a repeat takes its time: what was allowed at its beginning may not be at its end.
#[tokio::test]
async fn a_repeat_is_not_sent_when_sending_is_forbidden_during_its_search() {
    let may = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&may);
    let may_send: super::MaySend = Arc::new(move || asked.load(Ordering::SeqCst));
    let world = World::with(Fake::start().await, Options { may_send: Some(may_send), ..quick(8) });
    world.fake.delay(Duration::from_millis(150));
    let doubtful = world.queue.submit(post("doubtful").maybe_done());
    world.until_called("conversations.replies", 1).await;
    may.store(false, Ordering::SeqCst);
    tokio::time::timeout(Duration::from_millis(400), world.until_called("chat.postMessage", 1))
        .await
        .unwrap_err();
    may.store(true, Ordering::SeqCst);
    assert_eq!(within(doubtful).await, sent("1795133413.000001"));
    assert_eq!(world.fake.calls("conversations.replies").len(), 2);
}

/// Cause: what had failed in the outage sat out its long back-off while lesser things, never tried, went.
#[tokio::test]
async fn after_an_outage_the_important_goes_first_and_nothing_sits_out_a_back_off() {
    let options = Options { backoff: (Duration::from_millis(10), Duration::from_secs(60)), ..quick(1) };
    let world = World::with(Fake::start().await, options);
    world.fake.away(true);
    let declaration = world.queue.submit(Job::new(post_to("C1", "declaration"), Priority::Declaration));
    // Every try of the declaration fails, and its own wait grows.
    world.until_called("conversations.replies", 7).await;
    let mut lesser: Vec<_> = (0..6)
        .map(|number| {
            world.queue.submit(Job::new(post_to("C1", &format!("report {number}")), Priority::Report))
        })
        .collect();
    let reaction = Call::React { channel: "C1".into(), ts: "1.000001".into(), name: "eyes".into() };
    lesser.push(world.queue.submit(Job::new(reaction, Priority::Reaction)));
    world.until_called("chat.postMessage", 2).await;
    world.fake.away(false);
    within(declaration).await;
    for one in lesser {
        within(one).await;
    }
    let sent: Vec<_> =
        world.fake.messages().iter().map(|one| one["text"].as_str().unwrap().to_owned()).collect();
    let place = sent.iter().position(|text| text == "declaration").unwrap();
    // The one call that found Slack back may have been a lesser one.
    assert!(place <= 1, "{sent:?}");
}

#[tokio::test]
async fn an_outage_of_all_of_slack_is_probed_once_and_not_once_for_each_channel_and_method() {
    let world = World::start(8).await;
    world.fake.away(true);
    let mut waiting = Vec::new();
    for channel in ["C1", "C2", "C3", "C4", "C5"] {
        for number in 0..4 {
            waiting.push(
                world
                    .queue
                    .submit(Job::new(post_to(channel, &format!("{channel} {number}")), Priority::Report)),
            );
            let (ts, name) = (format!("{number}.000001"), "eyes".into());
            waiting.push(
                world
                    .queue
                    .submit(Job::new(Call::React { channel: channel.into(), ts, name }, Priority::Reaction)),
            );
        }
    }
    world.until_called("chat.postMessage", 1).await;
    // Not to let something happen, but to count what happens in a known time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = world.fake.calls("chat.postMessage").len() + world.fake.calls("reactions.add").len();
    let searches = world.fake.calls("conversations.replies").len();
    // Eight at first; then one every 50 to 100 ms. Ten lanes on their own would make over a hundred.
    assert!(calls + searches <= 8 + 30, "{calls} calls and {searches} searches in a second");
    world.fake.away(false);
    for one in waiting {
        assert!(matches!(within(one).await, Done::Sent { .. }));
    }
    assert_eq!(world.fake.messages().len(), 20);
}

#[tokio::test]
async fn more_than_may_wait_is_given_back_at_once_and_people_are_still_answered() {
    let world = World::with(Fake::start().await, Options { most_waiting: 2, ..quick(1) });
    world.fake.delay(Duration::from_millis(100));
    let kept = [world.queue.submit(post("one")), world.queue.submit(post("two"))];
    let given_back = within(world.queue.submit(post("three"))).await;
    assert!(matches!(given_back, Done::GaveUp(Error::NotDone { .. })), "{given_back:?}");
    let doubtful = within(world.queue.submit(post("four").maybe_done())).await;
    assert!(matches!(doubtful, Done::GaveUp(Error::Unclear { .. })), "{doubtful:?}");
    let ephemeral =
        Call::Ephemeral { channel: "C1".into(), user: "U1".into(), thread_ts: None, text: text("no") };
    assert!(matches!(
        within(world.queue.submit(Job::new(ephemeral, Priority::People))).await,
        Done::Sent { .. }
    ));
    for one in kept {
        assert!(matches!(within(one).await, Done::Sent { .. }));
    }
}

#[tokio::test]
async fn a_post_that_waits_says_what_is_true_when_it_goes() {
    let world = World::start(1).await;
    world.fake.delay(Duration::from_millis(100));
    let blocker = world.queue.submit(post("blocker"));
    world.until_called("chat.postMessage", 1).await;
    let metadata = Some(Metadata { event_type: "heal".into(), payload: json!({"run": "r1"}) });
    let saying = |said: &str| {
        Call::Post(Post {
            channel: "C1".into(),
            thread_ts: None,
            text: text(said),
            metadata: metadata.clone(),
        })
    };
    let waits = world.queue.submit(Job::new(saying("runs soon"), Priority::Declaration).merging("d1"));
    world.queue.freshen("d1", saying("too late, runs not"));
    // Another thing under the same key is not put in its place, and nothing is said where nothing waits.
    world.queue.freshen("d1", post_to("C1", "something else"));
    world.queue.freshen("d2", saying("never"));
    within(blocker).await;
    within(waits).await;
    assert_eq!(world.said("chat.postMessage"), ["blocker", "too late, runs not"]);
}
