//! Plain and encrypted connections, load balancers' headers, and certificates that change, on one port.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::frame::Command;
use protocol::header::Empty;
use remoting::connection::Session;
use remoting::opening::{Language, open};
use remoting::outbox::{Outbox, ReplyTo};
use remoting::peer::Peer;
use remoting::pool::Pool;
use remoting::process::Shutdown;
use remoting::server::{Server, Service};
use remoting::tls::{Acceptor, ClientAuth, Connector, Mode, Party, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers everything, and remembers who asked.
#[derive(Default)]
struct Answers(Mutex<Vec<SocketAddr>>);

struct Answering;

impl Service for Answers {
    type Session = Answering;
    fn open(self: &Arc<Self>, peer: &Arc<Peer>) -> Answering {
        self.0.lock().push(peer.remote);
        Answering
    }
}

impl Session for Answering {
    fn request(&mut self, request: Command<'_>, out: &mut Outbox) {
        let body = bytes::Bytes::copy_from_slice(&request.body);
        out.now.reply(ReplyTo::new(&request), &Empty {}, &[body]);
    }
    fn flush(&mut self, _: &mut Outbox) {}
    fn closed(&mut self) {}
}

const TIMEOUT: Duration = Duration::from_secs(10);

fn serve(tls: Arc<Acceptor>) -> (SocketAddr, Arc<Answers>, Shutdown) {
    let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap().with_tls(tls);
    let (address, service, shutdown) =
        (server.address, Arc::new(Answers::default()), Shutdown::new());
    tokio::spawn(server.serve(service.clone(), shutdown.clone()));
    (address, service, shutdown)
}

fn encrypted(settings: Settings) -> Pool {
    let settings = Settings { client_enabled: true, ..settings };
    Pool::new(Shutdown::new()).with_tls(Connector::new(&settings).unwrap())
}

async fn asks(pool: &Pool, address: SocketAddr, body: usize) -> Result<usize, String> {
    let request = Command::request(1, &Empty {}).with_body(vec![7; body]);
    let reply = pool.call(&address.to_string(), request, TIMEOUT).await;
    reply.map(|reply| reply.body.len()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn plain_and_encrypted_clients_share_a_port() {
    let tls = Acceptor::new(Settings::default(), &[]).unwrap();
    let (address, _, _shutdown) = serve(tls);
    for pool in [Pool::new(Shutdown::new()), encrypted(Settings::default())] {
        for body in [0, 10, 3_000_000] {
            assert_eq!(asks(&pool, address, body).await, Ok(body));
        }
    }
}

#[tokio::test]
async fn who_is_not_wanted_is_closed() {
    for (mode, plain, encrypting) in [(Mode::Disabled, true, false), (Mode::Enforcing, false, true)]
    {
        let settings = Settings { mode, ..Settings::default() };
        let (address, _, _shutdown) = serve(Acceptor::new(settings, &[]).unwrap());
        assert_eq!(asks(&Pool::new(Shutdown::new()), address, 1).await.is_ok(), plain);
        let outcome = asks(&encrypted(Settings::default()), address, 1).await;
        assert_eq!(outcome.is_ok(), encrypting);
    }
}

#[tokio::test]
async fn a_load_balancers_client_is_the_one_that_counts() {
    let (address, service, _shutdown) = serve(Acceptor::new(Settings::default(), &[]).unwrap());
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Byte by byte, so that every cut is seen.
    for byte in b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 10911\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut request = Vec::new();
    Command::request(1, &Empty {}).encode(&mut request);
    stream.write_all(&request).await.unwrap();
    let mut word = [0; 4];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(*service.0.lock(), ["203.0.113.7:5000".parse().unwrap()]);
}

#[tokio::test]
async fn languages_are_told_apart_with_and_without_encryption() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = Acceptor::new(Settings::default(), &[b"h2"]).unwrap();
    for (said, language) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Language::Http2),
        (&[0, 0, 0, 21, 9, 9], Language::Remoting),
    ] {
        for encrypting in [false, true] {
            let client = async {
                let mut stream = TcpStream::connect(address).await.unwrap();
                if encrypting {
                    let settings = Settings { client_enabled: true, ..Settings::default() };
                    let connector = Connector::new(&settings).unwrap().unwrap();
                    let mut stream = connector.connect("localhost", stream).await.unwrap();
                    stream.write_all(said).await.unwrap();
                    stream.flush().await.unwrap();
                    Box::pin(stream.shutdown()).await.unwrap();
                } else {
                    stream.write_all(said).await.unwrap();
                }
            };
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                let opened = open(stream, &acceptor).await.unwrap();
                assert_eq!(opened.language, language);
                let mut all = Vec::new();
                opened.into_io().read_to_end(&mut all).await.unwrap();
                assert_eq!(all, said);
            };
            tokio::join!(client, server);
        }
    }
}

/// An authority and an end that it vouches for, as PEM: the authority, the certificate, its key.
fn issued() -> (String, String, String) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_cert = authority.self_signed(&authority_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let params = rcgen::CertificateParams::new(vec!["elsewhere.example".to_owned()]).unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    (authority_cert.pem(), cert.pem(), key.serialize_pem())
}

/// Writes what `issued` gives and says how an end uses it.
fn party(folder: &Path) -> Party {
    let (authority, cert, key) = issued();
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).unwrap();
        Some(folder.join(name))
    };
    Party {
        trust_path: write("ca.pem", authority),
        cert_path: write("cert.pem", cert),
        key_path: write("key.pem", key),
        verify: true,
    }
}

#[tokio::test]
async fn both_ends_believe_only_whom_their_authority_vouches_for() {
    let folder = tempfile::tempdir().unwrap();
    let known = party(folder.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let unknown = party(elsewhere.path());
    let settings = Settings {
        test_mode: false,
        client_auth: ClientAuth::Require,
        server: known.clone(),
        ..Settings::default()
    };
    let (address, _, _shutdown) = serve(Acceptor::new(settings, &[]).unwrap());
    let client = |party: Party| {
        encrypted(Settings { test_mode: false, client: party, ..Settings::default() })
    };
    assert_eq!(asks(&client(known.clone()), address, 1).await, Ok(1));
    let stranger = Party { trust_path: known.trust_path.clone(), ..unknown.clone() };
    assert!(asks(&client(stranger), address, 1).await.is_err(), "the server knows nobody else");
    let distrusting = Party { trust_path: unknown.trust_path, ..known };
    let error = asks(&client(distrusting), address, 1).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn new_certificates_are_taken_and_open_connections_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let old = party(folder.path());
    let server = Party { verify: false, ..old.clone() };
    let settings = Settings { test_mode: false, server, ..Settings::default() };
    let acceptor = Acceptor::new(settings, &[]).unwrap();
    let shutdown = Shutdown::new();
    tokio::spawn(acceptor.clone().watch(Duration::from_millis(10), shutdown.clone()));
    let (address, _, _serving) = serve(acceptor.clone());
    let trusting = |party: &Party| {
        let client = Party { cert_path: None, key_path: None, ..party.clone() };
        encrypted(Settings { test_mode: false, client, ..Settings::default() })
    };
    // The old authority's text is kept, as its file is about to be replaced.
    let before = trusting(&old);
    assert_eq!(asks(&before, address, 1).await, Ok(1));
    let new = party(folder.path());
    let taken = async {
        while asks(&trusting(&new), address, 1).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, taken).await.expect("the new certificate is taken");
    assert_eq!(asks(&before, address, 1).await, Ok(1), "the old connection goes on");
    std::fs::write(new.key_path.unwrap(), "nonsense").unwrap();
    assert!(acceptor.reload().is_err());
    assert_eq!(asks(&trusting(&old), address, 1).await, Ok(1), "the last usable one stays");
}
