//! Two people who chat with the Matrix Rust SDK, by simplified sliding sync.
//!
//! `sliding-sync-chat BASE_URL FOLDER ALICE PASSWORD BOB PASSWORD` logs in as two users that exist,
//! and prints a line for each thing that it has seen to work. It ends with an error at the first
//! that does not.

#![recursion_limit = "512"]

use std::{future::Future, path::PathBuf, time::Duration};

use anyhow::{bail, Context, Result};
use matrix_sdk::{
    ruma::{
        api::client::{
            receipt::create_receipt::v3::ReceiptType, room::create_room::v3 as create_room,
            room::create_room::v3::RoomPreset,
        },
        events::{
            room::{encryption::RoomEncryptionEventContent, message::RoomMessageEventContent},
            tag::TagInfo,
            InitialStateEvent,
        },
        OwnedUserId, RoomId,
    },
    store::RoomLoadSettings,
    Client, Room, RoomState,
};
use matrix_sdk_ui::{
    sync_service::{State, SyncService},
    timeline::{RoomExt, Timeline},
};

const PATIENCE: Duration = Duration::from_secs(90);

struct Person {
    client: Client,
    service: SyncService,
    folder: PathBuf,
}

impl Person {
    async fn log_in(base_url: &str, folder: PathBuf, name: &str, password: &str) -> Result<Self> {
        let client = new_client(base_url, &folder).await?;
        client.matrix_auth().login_username(name, password).send().await?;
        Self::start(client, folder).await
    }

    /// Comes back after the program was ended, with what the store holds.
    async fn resume(self, base_url: &str) -> Result<Self> {
        let session = self.client.matrix_auth().session().context("a session")?;
        let folder = self.folder.clone();
        self.service.stop().await;
        drop(self);
        let client = new_client(base_url, &folder).await?;
        client.matrix_auth().restore_session(session, RoomLoadSettings::default()).await?;
        Self::start(client, folder).await
    }

    async fn start(client: Client, folder: PathBuf) -> Result<Self> {
        let service = SyncService::builder(client.clone()).build().await?;
        service.start().await;
        Ok(Self { client, service, folder })
    }

    fn id(&self) -> OwnedUserId {
        self.client.user_id().expect("logged in").to_owned()
    }

    async fn room(&self, room_id: &RoomId, state: RoomState) -> Result<Room> {
        until(&format!("{} has {room_id} as {state:?}", self.id()), || async {
            self.client.get_room(room_id).filter(|room| room.state() == state)
        })
        .await
    }

    async fn open(&self, room_id: &RoomId) -> Result<Timeline> {
        let room = self.room(room_id, RoomState::Joined).await?;
        self.service.room_list_service().subscribe_to_rooms(&[room_id]).await;
        Ok(room.timeline().await?)
    }
}

async fn new_client(base_url: &str, folder: &PathBuf) -> Result<Client> {
    Ok(Client::builder().homeserver_url(base_url).sqlite_store(folder, None).build().await?)
}

/// Waits until `probe` has something.
async fn until<T, F, Fut>(what: &str, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            println!("ok {what}");
            return Ok(found);
        }
        if tokio::time::Instant::now() > end {
            bail!("not so: {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn bodies(timeline: &Timeline) -> Vec<String> {
    let items = timeline.items().await;
    items
        .iter()
        .filter_map(|item| item.as_event()?.content().as_message().map(|m| m.body().to_owned()))
        .collect()
}

async fn shows(who: &str, timeline: &Timeline, body: &str) -> Result<()> {
    until(&format!("{who} reads {body:?}"), || async {
        bodies(timeline).await.iter().any(|each| each == body).then_some(())
    })
    .await
}

async fn say(timeline: &Timeline, body: &str) -> Result<()> {
    timeline.send(RoomMessageEventContent::text_plain(body).into()).await?;
    Ok(())
}

fn with_name(name: &str) -> create_room::Request {
    let mut request = create_room::Request::new();
    request.name = Some(name.to_owned());
    request.preset = Some(RoomPreset::PrivateChat);
    request
}

/// A direct chat with encryption: keys are exchanged by the other connection.
async fn encrypted_chat(alice: &Person, bob: &Person) -> Result<()> {
    let mut request = create_room::Request::new();
    request.is_direct = true;
    request.preset = Some(RoomPreset::TrustedPrivateChat);
    request.invite = vec![bob.id()];
    let encryption = RoomEncryptionEventContent::with_recommended_defaults();
    request.initial_state = vec![InitialStateEvent::with_empty_state_key(encryption).to_raw_any()];
    let room_id = alice.client.create_room(request).await?.room_id().to_owned();
    let invited = bob.room(&room_id, RoomState::Invited).await?;
    until("the inviter is known", || async {
        (invited.invite_details().await.ok()?.inviter?.user_id() == alice.id()).then_some(())
    })
    .await?;
    invited.join().await?;
    let (a, b) = (alice.open(&room_id).await?, bob.open(&room_id).await?);
    let room = alice.room(&room_id, RoomState::Joined).await?;
    until("alice sees that bob has joined", || async {
        (room.joined_members_count() == 2).then_some(())
    })
    .await?;
    assert!(room.latest_encryption_state().await?.is_encrypted());
    assert!(room.is_direct().await?);
    say(&a, "a secret").await?;
    shows("bob", &b, "a secret").await?;
    say(&b, "another one").await?;
    shows("alice", &a, "another one").await?;
    until("the chat is called after the other", || async {
        (room.display_name().await.ok()?.to_string() == bob.id().localpart()).then_some(())
    })
    .await
}

/// Many rooms: the range of the list grows until all of them are known.
async fn many_rooms(alice: &Person, bob: &Person) -> Result<()> {
    for number in 0..45 {
        alice.client.create_room(with_name(&format!("room {number}"))).await?;
    }
    until("alice's list has all rooms", || async {
        let rooms = alice.client.joined_rooms();
        let named = rooms.iter().filter(|r| r.name().is_some_and(|n| n.starts_with("room "))).count();
        (named == 45).then_some(())
    })
    .await?;
    let mut request = with_name("shared");
    request.invite = vec![bob.id()];
    request.topic = Some("what is shared".to_owned());
    let room_id = alice.client.create_room(request).await?.room_id().to_owned();
    bob.room(&room_id, RoomState::Invited).await?.join().await?;
    let b = bob.open(&room_id).await?;
    let room = alice.room(&room_id, RoomState::Joined).await?;
    until("the topic is known", || async {
        (room.topic().as_deref() == Some("what is shared")).then_some(())
    })
    .await?;
    let a = alice.open(&room_id).await?;
    read(&room, &a, &b).await?;
    until("bob sees the receipt", || async {
        let items = b.items().await;
        let mut events = items.iter().filter_map(|item| item.as_event());
        events.any(|event| event.read_receipts().contains_key(&alice.id())).then_some(())
    })
    .await?;
    let (_guard, mut typing) = bob.room(&room_id, RoomState::Joined).await?.subscribe_to_typing_notifications();
    room.typing_notice(true).await?;
    let seen = tokio::time::timeout(PATIENCE, typing.recv()).await??;
    assert_eq!(seen, [alice.id()]);
    println!("ok bob sees alice typing");
    room.set_is_favourite(true, None).await?;
    until("the room is a favourite", || async { room.is_favourite().then_some(()) }).await?;
    room.set_tag("u.work".into(), TagInfo::new()).await?;
    gap(alice, &a, &b).await?;
    bob.room(&room_id, RoomState::Joined).await?.leave().await?;
    bob.room(&room_id, RoomState::Left).await?;
    until("alice sees that bob has left", || async {
        (room.joined_members_count() == 1).then_some(())
    })
    .await
}

/// A message counts as unread until it is read.
///
/// The client may overwrite what it has learnt of a room with something older that it does at the
/// same time, until the server says it again; so there is a second message.
async fn read(room: &Room, a: &Timeline, b: &Timeline) -> Result<()> {
    for body in ["unread", "unread again", "unread once more"] {
        say(b, body).await?;
        shows("alice", a, body).await?;
        until("alice's room has unread messages", || async {
            (room.unread_notification_counts().notification_count > 0).then_some(())
        })
        .await?;
        a.mark_as_read(ReceiptType::Read).await?;
        for _ in 0..100 {
            if room.unread_notification_counts().notification_count == 0 {
                println!("ok all is read");
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    bail!("not so: it is read")
}

/// What was said while a client was away: the newest, and the rest by paging back.
async fn gap(alice: &Person, a: &Timeline, b: &Timeline) -> Result<()> {
    alice.service.stop().await;
    for number in 0..40 {
        say(b, &format!("meanwhile {number}")).await?;
    }
    until("bob has sent all", || async {
        let items = b.items().await;
        let waiting = items.iter().any(|i| i.as_event().is_some_and(|e| e.is_local_echo()));
        (!waiting).then_some(())
    })
    .await?;
    alice.service.start().await;
    shows("alice", a, "meanwhile 39").await?;
    until("alice has all, in order", || async {
        let said: Vec<_> = bodies(a).await.into_iter().filter(|b| b.starts_with("meanwhile")).collect();
        if said.len() < 40 {
            a.paginate_backwards(20).await.ok()?;
            return None;
        }
        let expected: Vec<_> = (0..40).map(|n| format!("meanwhile {n}")).collect();
        (said == expected).then_some(())
    })
    .await
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, base_url, folder, alice, alices, bob, bobs] = arguments.as_slice() else {
        bail!("usage: sliding-sync-chat BASE_URL FOLDER ALICE PASSWORD BOB PASSWORD");
    };
    let folder = PathBuf::from(folder);
    let alice = Person::log_in(base_url, folder.join("alice"), alice, alices).await?;
    let bob = Person::log_in(base_url, folder.join("bob"), bob, bobs).await?;
    encrypted_chat(&alice, &bob).await?;
    many_rooms(&alice, &bob).await?;
    let alice = alice.resume(base_url).await?;
    until("alice is back", || async {
        matches!(alice.service.state().get(), State::Running).then_some(())
    })
    .await?;
    until("alice still has her rooms", || async {
        (alice.client.joined_rooms().len() == 47).then_some(())
    })
    .await?;
    encrypted_chat(&bob, &alice).await?;
    println!("ok all");
    Ok(())
}
