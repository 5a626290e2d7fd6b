//! Frames that are nothing for us although there is a request in them: tagged, jumbo, fragmented, cut. Each
//! is ignored, which means that nothing is sent, no buffer is lost, and the next request is answered.

use super::*;

/// What it is, the frames.
type Row = (&'static str, Vec<Vec<u8>>);

#[test]
fn odd_frames_are_ignored() {
    let request = request(&CLIENT_REQUEST);
    let jumbo = |filled: &dyn Fn(&mut [u8])| {
        let mut payload = vec![0; 8972];
        payload[..48].copy_from_slice(&CLIENT_REQUEST);
        filled(&mut payload[48..]);
        super::request(&payload)
    };
    let more = 0x2000;
    let (first, second) = (
        fragment(&request, 0..32, more),
        fragment(&request, 32..56, 0),
    );
    #[rustfmt::skip]
    let table: Vec<Row> = vec![
        ("VLAN 1", vec![tagged(&request, &[0x81, 0, 0, 1])]),
        ("a priority, no VLAN", vec![tagged(&request, &[0x81, 0, 0xe0, 0])]),
        ("two tags", vec![tagged(&request, &[0x88, 0xa8, 0, 2, 0x81, 0, 0, 1])]),
        ("a tag and no more", vec![tagged(&request, &[0x81, 0, 0, 1])[..18].to_vec()]),
        ("802.3 with its length", vec![tagged(&request, &[0, 76])]),
        ("802.3 with SNAP", vec![tagged(&request, &[0, 84, 0xaa, 0xaa, 3, 0, 0, 0])]),
        ("jumbo of zeros", vec![jumbo(&|_| {})]),
        ("jumbo of ones", vec![jumbo(&|tail| tail.fill(0xff))]),
        ("jumbo of another protocol", vec![ethernet(GUEST_MAC, EthernetProtocol::Unknown(0x88b5), 9000)]),
        ("the first fragment", vec![first.clone()]),
        ("the last fragment", vec![second.clone()]),
        ("both fragments", vec![first.clone(), second.clone()]),
        ("the other way round", vec![second, first]),
        ("all of it in a first fragment", vec![fragment(&request, 0..56, more)]),
        ("and at an offset", vec![fragment(&request, 0..56, 1)]),
        ("and at the last offset", vec![fragment(&request, 0..56, 0x1fff)]),
        ("the reserved bit", vec![fragment(&request, 0..56, 0x8000)]),
        ("the same fragment again and again", vec![fragment(&request, 0..32, more); 100]),
    ];
    for (name, frames) in table {
        let mut rig = rig(&good(1, NOON), STATIC);
        let sent = rig.exchange(&frames);
        assert_eq!(sent, Vec::<Vec<u8>>::new(), "{name}");
        assert_eq!(rig.ask().map(|reply| leap(&reply)), Some(0), "{name}");
    }
}

#[test]
fn a_frame_cut_anywhere_is_ignored() {
    let request = request(&CLIENT_REQUEST);
    let mut rig = rig(&good(1, NOON), STATIC);
    for length in 0..request.len() {
        let sent = rig.exchange(&[request[..length].to_vec()]);
        assert_eq!(sent, Vec::<Vec<u8>>::new(), "{length} bytes");
    }
    assert_eq!(rig.ask().map(|reply| leap(&reply)), Some(0));
}

/// Of all datagrams of a plain request and zeros, only the request itself is answered.
#[test]
fn every_length_has_its_answer_on_the_wire() {
    let mut rig = rig(&good(1, NOON), STATIC);
    let mut payload = vec![0; 1472];
    payload[..48].copy_from_slice(&CLIENT_REQUEST);
    for length in 0..=payload.len() {
        let sent = rig.exchange(&[request(&payload[..length])]);
        let replies: Vec<_> = sent.iter().map(|frame| reply(frame).len()).collect();
        let expected = if length == 48 { vec![48] } else { vec![] };
        assert_eq!(replies, expected, "{length} bytes");
    }
}

/// Fragments of ever new datagrams fill no memory: the next ones are still thrown away, and requests
/// still answered.
#[test]
fn a_flood_of_fragments_changes_nothing() {
    let mut rig = rig(&good(1, NOON), STATIC);
    for id in 0..5000_u16 {
        let mut frame = fragment(&request(&CLIENT_REQUEST), 0..32, 0x2000);
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
        assert_eq!(rig.exchange(&[frame]), Vec::<Vec<u8>>::new());
    }
    assert_eq!(rig.ask().map(|reply| leap(&reply)), Some(0));
}

/// The frame with something between its addresses and its type.
fn tagged(frame: &[u8], tag: &[u8]) -> Vec<u8> {
    [&frame[..12], tag, &frame[12..]].concat()
}

/// A part of what the IP packet carries, as a packet with these flags and offset.
fn fragment(frame: &[u8], part: core::ops::Range<usize>, flags_and_offset: u16) -> Vec<u8> {
    let offset = u16::try_from(part.start / 8).unwrap();
    let mut fragment = [&frame[..34], &frame[34..][part]].concat();
    let length = u16::try_from(fragment.len() - 14).unwrap();
    fragment[16..18].copy_from_slice(&length.to_be_bytes());
    fragment[20..22].copy_from_slice(&(flags_and_offset + offset).to_be_bytes());
    Ipv4Packet::new_unchecked(&mut fragment[14..]).fill_checksum();
    fragment
}
