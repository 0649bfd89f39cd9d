//! Devices that are signed in with the Matrix Rust SDK by a QR code, as those of Element X are.
//!
//! `qr-login BASE_URL FOLDER USER_ID PASSWORD` logs one device in by its password, and two others
//! by QR codes: the first scans that of the old device, the second shows its own. For each it prints
//! the address at which the user has to permit the new device, and "ok" in the end. It ends with an
//! error at the first thing that does not work.

use std::{path::Path, time::Duration};

use anyhow::{bail, ensure, Context, Result};
use futures_util::{Stream, StreamExt};
use matrix_sdk::{
    authentication::oauth::{
        qrcode::{
            CheckCodeSender, GeneratedQrProgress, GrantLoginProgress, LoginProgress, QrCodeData,
            QrProgress,
        },
        registration::{ApplicationType, ClientMetadata, Localized, OAuthGrantType},
        ClientRegistrationData,
    },
    encryption::{CrossSigningStatus, EncryptionSettings},
    reqwest::Url,
    ruma::serde::Raw,
    Client,
};
use tokio::{sync::oneshot, time::timeout, try_join};

const PATIENCE: Duration = Duration::from_secs(120);

fn registration() -> Result<ClientRegistrationData> {
    let home = Url::parse("https://messages.example/")?;
    let grants = vec![OAuthGrantType::DeviceCode];
    let mut metadata =
        ClientMetadata::new(ApplicationType::Native, grants, Localized::new(home, []));
    metadata.client_name = Some(Localized::new("Messages for phones".to_owned(), []));
    Ok(Raw::new(&metadata)?.into())
}

async fn new_client(base_url: &str, folder: &Path) -> Result<Client> {
    let settings =
        EncryptionSettings { auto_enable_cross_signing: true, ..EncryptionSettings::default() };
    let builder = Client::builder()
        .homeserver_url(base_url)
        .handle_refresh_tokens()
        .with_encryption_settings(settings);
    Ok(builder.sqlite_store(folder, None).build().await?)
}

/// What the device that shows the QR code passes on: the code, and how to enter the check code.
struct Shown {
    code: Option<oneshot::Sender<QrCodeData>>,
    check: Option<oneshot::Sender<CheckCodeSender>>,
}

impl Shown {
    fn new() -> (Self, oneshot::Receiver<QrCodeData>, oneshot::Receiver<CheckCodeSender>) {
        let (code, code_receiver) = oneshot::channel();
        let (check, check_receiver) = oneshot::channel();
        (Self { code: Some(code), check: Some(check) }, code_receiver, check_receiver)
    }

    fn pass_on(&mut self, progress: GeneratedQrProgress) {
        match progress {
            GeneratedQrProgress::QrReady(data) => {
                self.code.take().map(|sender| sender.send(data));
            }
            GeneratedQrProgress::QrScanned(sender) => {
                self.check.take().map(|waiting| waiting.send(sender));
            }
        }
    }
}

/// The user reads the check code from the device that has scanned, and enters it into the other.
async fn enter(check: oneshot::Receiver<CheckCodeSender>, progress: QrProgress) -> Result<()> {
    Ok(check.await?.send(progress.check_code.to_digit()).await?)
}

/// Follows the old device until it has finished, and prints what its user has to open.
async fn show_to_permit<Q>(
    mut progress: impl Stream<Item = GrantLoginProgress<Q>> + Unpin,
    mut at_qr: impl FnMut(Q),
) -> Result<()> {
    while let Some(state) = progress.next().await {
        match state {
            GrantLoginProgress::EstablishingSecureChannel(qr) => at_qr(qr),
            GrantLoginProgress::WaitingForAuth { verification_uri } => println!("{verification_uri}"),
            _ => (),
        }
    }
    Ok(())
}

/// The old device shows the code, and the new one scans it.
async fn scan_with_new(old: &Client, new: &Client) -> Result<()> {
    let (mut shown, code, check) = Shown::new();
    let old_oauth = old.oauth();
    let grant = old_oauth.grant_login_with_qr_code().generate();
    let old_progress = grant.subscribe_to_progress();
    let watch = show_to_permit(old_progress, |qr| shown.pass_on(qr));
    let scan = async {
        let data = code.await?;
        let (oauth, registered) = (new.oauth(), registration()?);
        let login = oauth.login_with_qr_code(Some(&registered)).scan(&data);
        let mut progress = login.subscribe_to_progress();
        let compare = async {
            let mut check = Some(check);
            while let Some(state) = progress.next().await {
                if let LoginProgress::EstablishingSecureChannel(qr) = state {
                    enter(check.take().context("one check code")?, qr).await?;
                }
            }
            anyhow::Ok(())
        };
        try_join!(async { anyhow::Ok(login.await?) }, compare)?;
        anyhow::Ok(())
    };
    try_join!(async { anyhow::Ok(grant.await?) }, watch, scan)?;
    Ok(())
}

/// The new device shows the code, and the old one scans it.
async fn scan_with_old(old: &Client, new: &Client) -> Result<()> {
    let (mut shown, code, check) = Shown::new();
    let (new_oauth, registered) = (new.oauth(), registration()?);
    let login = new_oauth.login_with_qr_code(Some(&registered)).generate();
    let mut progress = login.subscribe_to_progress();
    let watch = async {
        while let Some(state) = progress.next().await {
            if let LoginProgress::EstablishingSecureChannel(qr) = state {
                shown.pass_on(qr);
            }
        }
        anyhow::Ok(())
    };
    let scan = async {
        let data = code.await?;
        let oauth = old.oauth();
        let grant = oauth.grant_login_with_qr_code().scan(&data);
        let (compared, comparing) = oneshot::channel();
        let mut compared = Some(compared);
        let progress = show_to_permit(grant.subscribe_to_progress(), |qr| {
            compared.take().map(|sender| sender.send(qr));
        });
        let compare = async { enter(check, comparing.await?).await };
        try_join!(async { anyhow::Ok(grant.await?) }, progress, compare)?;
        anyhow::Ok(())
    };
    try_join!(async { anyhow::Ok(login.await?) }, watch, scan)?;
    Ok(())
}

/// The new device is of the same user, and has the keys with which the user is verified.
async fn check(old: &Client, new: &Client) -> Result<()> {
    let who = new.whoami().await?;
    ensure!(who.user_id == old.user_id().context("a user")?, "the same user");
    ensure!(who.device_id.as_deref() != old.device_id(), "another device");
    let status = new.encryption().cross_signing_status().await;
    ensure!(status.as_ref().is_some_and(CrossSigningStatus::is_complete), "{status:?}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, base_url, folder, user_id, password] = arguments.as_slice() else {
        bail!("usage: qr-login BASE_URL FOLDER USER_ID PASSWORD");
    };
    let folder = Path::new(folder);
    let old = new_client(base_url, &folder.join("old")).await?;
    old.matrix_auth().login_username(user_id, password).await?;
    old.encryption().wait_for_e2ee_initialization_tasks().await;

    let second = new_client(base_url, &folder.join("second")).await?;
    timeout(PATIENCE, scan_with_new(&old, &second)).await??;
    check(&old, &second).await?;

    let third = new_client(base_url, &folder.join("third")).await?;
    timeout(PATIENCE, scan_with_old(&old, &third)).await??;
    check(&old, &third).await?;
    println!("ok");
    Ok(())
}
