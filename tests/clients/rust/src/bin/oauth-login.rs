//! A client that signs in with the Matrix Rust SDK by the OAuth 2.0 API, as Element X does.
//!
//! `oauth-login BASE_URL FOLDER` prints the address that its user has to open, waits on a port of
//! this machine until the browser comes back, uses the session, and prints "ok" in the end. It ends
//! with an error at the first thing that does not work. It does not sign out: the library revokes
//! tokens by HTTPS alone.

use std::{path::PathBuf, time::Duration};

use anyhow::{bail, ensure, Context, Result};
use matrix_sdk::{
    authentication::oauth::{
        registration::{ApplicationType, ClientMetadata, Localized, OAuthGrantType},
        AccountManagementActionFull,
    },
    reqwest::Url,
    ruma::{api::client::room::create_room::v3 as create_room, serde::Raw},
    store::RoomLoadSettings,
    Client,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);
const CALLBACK: &str = "http://127.0.0.1/callback";

fn metadata() -> Result<Raw<ClientMetadata>> {
    let home = Url::parse("https://messages.example/")?;
    let grants = vec![
        OAuthGrantType::AuthorizationCode { redirect_uris: vec![Url::parse(CALLBACK)?] },
        OAuthGrantType::DeviceCode,
    ];
    let mut metadata =
        ClientMetadata::new(ApplicationType::Native, grants, Localized::new(home.clone(), []));
    metadata.client_name = Some(Localized::new("Messages for phones".to_owned(), []));
    metadata.tos_uri = Some(Localized::new(home.join("terms")?, []));
    Ok(Raw::new(&metadata)?)
}

async fn new_client(base_url: &str, folder: &PathBuf) -> Result<Client> {
    let builder = Client::builder().homeserver_url(base_url).handle_refresh_tokens();
    Ok(builder.sqlite_store(folder, None).build().await?)
}

/// The address at which the browser came back.
async fn callback(listener: TcpListener, address: &Url) -> Result<Url> {
    let (mut browser, _) = timeout(PATIENCE, listener.accept()).await??;
    let mut received = vec![0; 8192];
    let size = browser.read(&mut received).await?;
    let head = String::from_utf8(received[..size].to_vec())?;
    let path = head.split(' ').nth(1).context("a request")?;
    let page = "You are signed in to Messages";
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{page}",
        page.len()
    );
    browser.write_all(response.as_bytes()).await?;
    Ok(address.join(path)?)
}

async fn sign_in(client: &Client) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut address = Url::parse(CALLBACK)?;
    address.set_port(Some(listener.local_addr()?.port())).ok().context("a port")?;
    let oauth = client.oauth();
    let login = oauth.login(address.clone(), None, Some(metadata()?.into()), None).build().await?;
    println!("{}", login.url);
    let back = callback(listener, &address).await?;
    oauth.finish_login(back.into()).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, base_url, folder] = arguments.as_slice() else {
        bail!("usage: oauth-login BASE_URL FOLDER");
    };
    let folder = PathBuf::from(folder);
    let client = new_client(base_url, &folder).await?;
    sign_in(&client).await?;
    client.whoami().await?;
    client.create_room(create_room::Request::new()).await?;

    let before = client.access_token().context("an access token")?;
    client.oauth().refresh_access_token().await?;
    ensure!(client.access_token().context("an access token")? != before, "a new token");
    client.whoami().await?;

    let action = AccountManagementActionFull::SessionsList;
    let management = client.oauth().account_management_url().await?.context("an address")?;
    println!("{}", management.action(action).build());

    let session = client.oauth().full_session().context("a session")?;
    drop(client);
    let client = new_client(base_url, &folder).await?;
    client.oauth().restore_session(session, RoomLoadSettings::default()).await?;
    client.encryption().wait_for_e2ee_initialization_tasks().await;
    client.whoami().await?;
    println!("ok");
    Ok(())
}
