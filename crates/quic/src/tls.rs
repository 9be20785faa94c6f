//! TLS settings: raw public keys on both sides, one key exchange group, nothing resumable.

use keys::{ControllerId, ControllerSecret, NodeId, NodeSecret};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::aws_lc_rs::{self, kx_group, sign::any_eddsa_type};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use std::ops::RangeInclusive;
use std::sync::Arc;
use wire::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION};

/// The versions of the control protocol that this build speaks.
pub(crate) const SPOKEN: Versions = OLDEST_PROTOCOL_VERSION..=PROTOCOL_VERSION;

/// Versions of the control protocol.
pub(crate) type Versions = RangeInclusive<u8>;

/// The names that a side gives in ALPN (RFC 7301), one for each version that it speaks, newest first. The controller
/// takes the first of its own that the node has too.
fn alpn(versions: Versions) -> Vec<Vec<u8>> {
    versions.rev().map(name_of).collect()
}

fn name_of(version: u8) -> Vec<u8> {
    format!("{ALPN_PREFIX}{version}").into_bytes()
}

/// The version that a name in ALPN means.
pub(crate) fn version_of(name: &[u8]) -> Option<u8> {
    SPOKEN.into_iter().find(|version| name_of(*version) == name)
}

const ALPN_PREFIX: &str = "meshd/";

pub(crate) fn server_config(secret: &ControllerSecret, versions: Versions) -> QuicServerConfig {
    let provider = Arc::new(provider());
    let key = certified(&secret.expose_pkcs8(), &secret.public().0);
    let verifier = Arc::new(RawKeyVerifier {
        pinned: None,
        algorithms: provider.signature_verification_algorithms,
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3 is supported by this provider")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = alpn(versions);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).expect("the provider has QUIC's initial cipher suite")
}

pub(crate) fn client_config(
    secret: &NodeSecret,
    controller: ControllerId,
    versions: Versions,
) -> QuicClientConfig {
    let provider = Arc::new(provider());
    let key = certified(&secret.expose_pkcs8(), &secret.public().0);
    let verifier = Arc::new(RawKeyVerifier {
        pinned: Some(controller.0),
        algorithms: provider.signature_verification_algorithms,
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3 is supported by this provider")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = alpn(versions);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    QuicClientConfig::try_from(config).expect("the provider has QUIC's initial cipher suite")
}

/// The 32 key bytes of an Ed25519 SubjectPublicKeyInfo (RFC 8410); `None` for anything else.
pub(crate) fn key_of_spki(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    }
}

fn certified(pkcs8: &[u8], public: &[u8; 32]) -> Arc<CertifiedKey> {
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).expect("an Ed25519 PKCS#8 key");
    let spki = [&SPKI_PREFIX[..], public].concat();
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key))
}

/// Checks that the other side holds the key that it shows and, on the node's side, that it is the
/// pinned one. The handshake's signature is what proves possession.
#[derive(Debug)]
struct RawKeyVerifier {
    pinned: Option<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl RawKeyVerifier {
    fn check(&self, spki: &CertificateDer<'_>) -> Result<(), Error> {
        let key =
            key_of_spki(spki).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        // A weak key proves nobody: its signatures fit messages that its holder never signed.
        if !NodeId(key).is_sound() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        match self.pinned {
            Some(pinned) if pinned != key => Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

const NO_TLS12: &str = "TLS 1.2 is not spoken";

impl ServerCertVerifier for RawKeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General(NO_TLS12.into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General(NO_TLS12.into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// SubjectPublicKeyInfo of Ed25519 without the key: SEQUENCE, AlgorithmIdentifier 1.3.101.112, BIT STRING.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
