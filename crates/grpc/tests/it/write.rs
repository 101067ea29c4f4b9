//! `Write` as containerd's clients speak it, message by message.

use std::sync::Arc;

use bytes::Bytes;
use futures::channel::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use windlass_core::content::Expected;
use windlass_core::{Digest, Host as _, Kind, Scope};
use windlass_grpc::Client;
use windlass_proto::containerd::services::content::v1::content_client::ContentClient;
use windlass_proto::containerd::services::content::v1::{
    AbortRequest, InfoRequest, ListStatusesRequest, StatusRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};

use crate::{channel, connect, in_namespace};

/// One end of a conversation.
struct Talk {
    messages: mpsc::UnboundedSender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
}

impl Talk {
    async fn begin(content: &mut ContentClient<Channel>) -> Self {
        let (messages, outbound) = mpsc::unbounded();
        let answers = content.write(in_namespace(outbound)).await.unwrap().into_inner();
        Self { messages, answers }
    }

    async fn say(&mut self, message: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        self.messages.unbounded_send(message).unwrap();
        self.answers.message().await.map(Option::unwrap)
    }
}

fn stat(r#ref: &str) -> WriteContentRequest {
    WriteContentRequest { r#ref: r#ref.into(), ..WriteContentRequest::default() }
}

fn data(offset: i64, data: &'static [u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: WriteAction::Write.into(),
        offset,
        data: Bytes::from_static(data),
        ..WriteContentRequest::default()
    }
}

fn commit(offset: i64, total: i64, expected: &str) -> WriteContentRequest {
    WriteContentRequest {
        action: WriteAction::Commit.into(),
        offset,
        total,
        expected: expected.into(),
        ..WriteContentRequest::default()
    }
}

fn text(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

async fn offset(content: &mut ContentClient<Channel>, r#ref: &str) -> Result<i64, Code> {
    let answer = content.status(in_namespace(StatusRequest { r#ref: r#ref.into() })).await;
    answer.map(|answer| answer.into_inner().status.unwrap().offset).map_err(|status| status.code())
}

/// Brings a blob in one message.
async fn bring(content: &mut ContentClient<Channel>, bytes: &'static [u8]) {
    let whole = WriteContentRequest { r#ref: "whole".into(), data: Bytes::from_static(bytes), ..commit(0, 0, "") };
    Talk::begin(content).await.say(whole).await.unwrap();
}

#[tokio::test]
async fn an_ingest_is_opened_written_and_committed() {
    let mut content = ContentClient::new(channel().await);
    let mut talk = Talk::begin(&mut content).await;
    let opened =
        talk.say(WriteContentRequest { total: 10, expected: text(b"0123456789"), ..stat("ref") }).await.unwrap();
    assert_eq!((opened.action(), opened.offset, opened.total), (WriteAction::Stat, 0, 10));
    assert_eq!(opened.digest, text(b""), "the digest is that of what is here so far");
    assert!(opened.started_at.unwrap().seconds > 0 && opened.updated_at.unwrap().seconds > 0);
    let written = talk.say(data(0, b"0123")).await.unwrap();
    assert_eq!((written.action(), written.offset, written.digest), (WriteAction::Write, 4, text(b"0123")));
    talk.say(data(4, b"4567")).await.unwrap();
    let labels = [("a".to_owned(), "b".to_owned())].into();
    let last = WriteContentRequest { labels, data: Bytes::from_static(b"89"), ..commit(8, 10, "") };
    let committed = talk.say(last).await.unwrap();
    assert_eq!((committed.action(), committed.offset, committed.total), (WriteAction::Commit, 10, 10));
    assert_eq!(committed.digest, text(b"0123456789"));
    assert!(talk.answers.message().await.unwrap().is_none(), "the commit is the end");
    let info = content.info(in_namespace(InfoRequest { digest: committed.digest })).await.unwrap();
    assert_eq!(info.into_inner().info.unwrap().labels["a"], "b");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let mut content = ContentClient::new(channel().await);
    let nonsense = WriteContentRequest { action: 7, ..stat("ref") };
    let no_digest = WriteContentRequest { expected: "sha256:abc".into(), ..stat("ref") };
    let below_zero = WriteContentRequest { r#ref: "ref".into(), ..data(-1, b"x") };
    let less_than_nothing = WriteContentRequest { total: -1, ..stat("ref") };
    let long = stat(&"x".repeat(2_000));
    for message in [stat(""), nonsense, no_digest, below_zero, less_than_nothing, long] {
        let refused = Talk::begin(&mut content).await.say(message.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{message:?}");
    }
    let unnamed = content.write(Request::new(futures::stream::iter([stat("ref")]))).await.unwrap_err();
    assert_eq!(unnamed.code(), Code::FailedPrecondition, "no namespace");
    let huge = WriteContentRequest { data: vec![0; 17 << 20].into(), ..stat("huge") };
    assert!(Talk::begin(&mut content).await.say(huge).await.is_err(), "a message of 17 MiB");
    assert_eq!(offset(&mut content, "huge").await, Err(Code::NotFound));
    let silent = content.write(in_namespace(futures::stream::empty())).await.unwrap();
    assert!(silent.into_inner().message().await.unwrap().is_none(), "who says nothing is told nothing");
}

#[tokio::test]
async fn a_write_begins_where_the_ingest_ends_or_anew() {
    let mut content = ContentClient::new(channel().await);
    for wrong in [4, 6] {
        let mut talk = Talk::begin(&mut content).await;
        talk.say(stat("ref")).await.unwrap();
        talk.say(data(0, b"01234")).await.unwrap();
        let refused = talk.say(data(wrong, b"x")).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
        assert_eq!(offset(&mut content, "ref").await, Ok(5), "what was written stays");
        content.abort(in_namespace(AbortRequest { r#ref: "ref".into() })).await.unwrap();
    }
    let mut talk = Talk::begin(&mut content).await;
    talk.say(stat("ref")).await.unwrap();
    talk.say(data(0, b"wrong")).await.unwrap();
    let anew = talk.say(data(0, b"right")).await.unwrap();
    assert_eq!((anew.offset, anew.digest), (5, text(b"right")));
    assert_eq!(talk.say(commit(5, 0, "")).await.unwrap().digest, text(b"right"));
}

#[tokio::test]
async fn the_second_of_two_writers_is_refused_until_the_first_is_gone() {
    let mut content = ContentClient::new(channel().await);
    let mut first = Talk::begin(&mut content).await;
    first.say(stat("ref")).await.unwrap();
    first.say(data(0, b"01234")).await.unwrap();
    let refused = Talk::begin(&mut content).await.say(stat("ref")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    // It goes without a word: its stream is reset.
    drop(first);
    let mut next = reopened(&mut content).await;
    assert_eq!(next.say(stat("ref")).await.unwrap().offset, 5, "what was written stays");
    // It ends its half of the conversation, and hears that this is the end.
    next.messages.close_channel();
    assert!(next.answers.message().await.unwrap().is_none());
    let mut last = Talk::begin(&mut content).await;
    assert_eq!(last.say(stat("ref")).await.unwrap().offset, 5, "the ref is free when the end is heard");
}

/// As with containerd, whose clients do it.
#[tokio::test]
async fn an_ingest_is_aborted_under_its_writer_and_right_behind_it() {
    let channel = channel().await;
    let mut content = ContentClient::new(channel.clone());
    let abort = || in_namespace(AbortRequest { r#ref: "ref".into() });
    let mut held = Talk::begin(&mut content).await;
    held.say(stat("ref")).await.unwrap();
    held.say(data(0, b"01234")).await.unwrap();
    // A client of ours keeps to the contract, where a writer keeps what it writes.
    let services = Client::new(channel).services(&Scope::default()).await.unwrap();
    let refused = services.content.abort(&"ref".parse().unwrap()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable);
    content.abort(abort()).await.unwrap();
    assert_eq!(held.answers.message().await.unwrap_err().code(), Code::Aborted);
    assert_eq!(offset(&mut content, "ref").await, Err(Code::NotFound));
    assert_eq!(content.abort(abort()).await.unwrap_err().code(), Code::NotFound);
    for _ in 0..20 {
        let mut closed = Talk::begin(&mut content).await;
        assert_eq!(closed.say(stat("ref")).await.unwrap().offset, 0);
        closed.say(data(0, b"01234")).await.unwrap();
        // Nobody waits for the end of the conversation.
        closed.messages.close_channel();
        content.abort(abort()).await.unwrap();
    }
}

/// Opens a ref again whose writer has just gone; the reset of its stream is on its way.
async fn reopened(content: &mut ContentClient<Channel>) -> Talk {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let mut talk = Talk::begin(content).await;
        match talk.say(stat("ref")).await {
            Ok(_) => return talk,
            Err(status) => assert_eq!(status.code(), Code::Unavailable),
        }
        assert!(std::time::Instant::now() < deadline, "the ref is still locked");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_whose_connection_is_lost_leaves_an_ingest_that_another_one_continues() {
    let host = crate::host();
    let mut content = ContentClient::new(connect(&host).await);
    let mut talk = Talk::begin(&mut content).await;
    talk.say(stat("ref")).await.unwrap();
    talk.say(data(0, b"01234")).await.unwrap();
    drop((talk, content));
    let mut content = ContentClient::new(connect(&host).await);
    let mut talk = reopened(&mut content).await;
    assert_eq!(talk.say(commit(5, 5, "")).await.unwrap().digest, text(b"01234"));
}

#[tokio::test]
async fn content_that_is_here_is_not_written_again() {
    let mut content = ContentClient::new(channel().await);
    bring(&mut content, b"here").await;
    let here = text(b"here");
    let at_once = WriteContentRequest { expected: here.clone(), ..stat("ref") };
    let refused = Talk::begin(&mut content).await.say(at_once).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "declared with the first message");
    for action in [WriteAction::Stat, WriteAction::Write, WriteAction::Commit] {
        let mut talk = Talk::begin(&mut content).await;
        talk.say(stat("ref")).await.unwrap();
        talk.say(data(0, b"he")).await.unwrap();
        let late = WriteContentRequest { action: action.into(), expected: here.clone(), ..data(2, b"re") };
        assert_eq!(talk.say(late).await.unwrap_err().code(), Code::AlreadyExists, "declared with {action:?}");
    }
    let mut talk = Talk::begin(&mut content).await;
    talk.say(stat("ref")).await.unwrap();
    talk.say(data(0, b"here")).await.unwrap();
    assert_eq!(talk.say(commit(4, 0, "")).await.unwrap_err().code(), Code::AlreadyExists, "found out at the commit");
    let left = content.list_statuses(in_namespace(ListStatusesRequest::default())).await.unwrap();
    assert!(left.into_inner().statuses.is_empty(), "none of them leaves an ingest");
}

#[tokio::test]
async fn a_commit_that_expected_something_else_leaves_the_ingest_to_another_one() {
    let mut content = ContentClient::new(channel().await);
    let mut talk = Talk::begin(&mut content).await;
    talk.say(stat("ref")).await.unwrap();
    talk.say(data(0, b"01234")).await.unwrap();
    let wrong_digest = talk.say(commit(5, 5, &text(b"other"))).await.unwrap_err();
    assert_eq!(wrong_digest.code(), Code::FailedPrecondition);
    let mut talk = Talk::begin(&mut content).await;
    assert_eq!(talk.say(stat("ref")).await.unwrap().offset, 5);
    let wrong_size = talk.say(commit(5, 4, "")).await.unwrap_err();
    assert_eq!(wrong_size.code(), Code::FailedPrecondition);
    let mut talk = Talk::begin(&mut content).await;
    assert_eq!(talk.say(stat("ref")).await.unwrap().offset, 5);
    assert_eq!(talk.say(commit(5, 5, &text(b"01234"))).await.unwrap().digest, text(b"01234"));
}

#[tokio::test]
async fn over_a_connection_that_says_no_process_a_file_is_not_read_by_the_server() {
    let root = tempfile::tempdir().unwrap();
    let engine: Arc<dyn windlass_core::Host> =
        Arc::new(windlass::Engine::open(root.path().join("root")).await.unwrap());
    let client = Client::new(connect(&engine).await);
    let content = client.services(&Scope::default()).await.unwrap().content;
    let file = Arc::new(tempfile::tempfile().unwrap());
    file.set_len(5 << 20).unwrap();
    let mut writer = content.writer(&"file".parse().unwrap(), Expected::default()).await.unwrap();
    for _ in 0..2 {
        assert!(!writer.write_file(&file, 0..5 << 20).await.unwrap());
        assert_eq!(writer.status().await.unwrap().offset, 0);
    }
}
