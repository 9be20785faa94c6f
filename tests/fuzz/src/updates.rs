//! Epoch updates: only the authority's are believed, and a believed one keeps the rules of its
//! type, reads back after signing, and finds each of its members.

use crate::fixed::AUTHORITY;
use keys::AuthorityId;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use wire::signed::Signable as _;
use wire::{EpochUpdate, Signed, Verified};

/// `data` is a [`Signed`] update as it travels.
pub fn envelope(data: &[u8]) {
    let Ok((signed, _)) = postcard::take_from_bytes::<Signed<EpochUpdate>>(data) else {
        return;
    };
    let bytes = postcard::to_stdvec(&signed).expect("a signed value always encodes");
    let again: Signed<EpochUpdate> = postcard::from_bytes(&bytes).expect("and reads back");
    assert_eq!(again.digest(), signed.digest());
    let trusted = [AUTHORITY.public()];
    assert_eq!(
        again.verify(&trusted).map(|update| update.digest()),
        signed.verify(&trusted).map(|update| update.digest()),
    );
    assert!(signed.verify(&[]).is_err(), "nobody is trusted by default");
    if let Ok(update) = signed.verify(&trusted) {
        holds(&update);
    }
}

/// `data` is a payload that the authority signed, whatever it is.
pub fn payload(data: &[u8]) {
    if let Ok(update) = sign_anything(data).verify(&[AUTHORITY.public()]) {
        holds(&update);
    }
}

/// Signs bytes that [`Signed::sign`] might refuse.
pub fn sign_anything(payload: &[u8]) -> Signed<EpochUpdate> {
    let raw = RawSigned {
        payload,
        signer: AUTHORITY.public(),
        signature: &AUTHORITY
            .sign(EpochUpdate::LABEL, &Sha256::digest(payload))
            .0,
    };
    let bytes = postcard::to_stdvec(&raw).expect("a signed value always encodes");
    postcard::from_bytes(&bytes).expect("the mirror has the fields of `Signed`")
}

fn holds(update: &Verified<EpochUpdate>) {
    assert_eq!(update.check(), Ok(()));
    for member in &update.roster {
        assert_eq!(update.member(&member.node), Some(member));
        assert_eq!(update.exclusion(&member.node), None);
    }
    for excluded in &update.excluded {
        assert_eq!(update.exclusion(&excluded.node), Some(excluded));
        assert_eq!(update.member(&excluded.node), None);
    }
    let signed = Signed::sign(&**update, &AUTHORITY).expect("a believed update can be signed");
    let again = signed
        .verify(&[AUTHORITY.public()])
        .expect("and is believed");
    assert_eq!(*again, **update);
}

/// The fields of [`Signed`], in its order.
#[derive(Serialize)]
struct RawSigned<'a> {
    payload: &'a [u8],
    signer: AuthorityId,
    signature: &'a [u8],
}
