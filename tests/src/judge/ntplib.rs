//! ntplib, a module of Python that judges nothing: it shows the fields, and we look at them.

use std::process::Command;

use super::{Seat, Verdict, unpacked};

const SCRIPT: &str = "
import ntplib, sys
reply = ntplib.NTPClient().request(sys.argv[1], version=4, timeout=60)
print('leap', reply.leap, 'version', reply.version, 'mode', ntplib.mode_to_text(reply.mode),
      'stratum', reply.stratum, 'refid', reply.ref_id.to_bytes(4, 'big').decode(),
      'offset %.9f' % reply.offset, 'delay %.9f' % reply.delay,
      'dispersion %.9f' % reply.root_dispersion)
";

pub(super) fn request(seat: &Seat<'_>) -> Verdict {
    let mut python = Command::new(unpacked("ntplib/bin/python"));
    python.args(["-c", SCRIPT, &seat.server.to_string()]);
    let (status, said) = seat.run(&mut python);
    assert!(status.success(), "{said}");
    if said.starts_with("leap 3 version 4 mode server stratum 0 refid INIT ") {
        return Verdict::Refuses(said);
    }
    let fields = "leap 0 version 4 mode server stratum 1 refid XVMC ";
    assert!(said.starts_with(fields), "{said}");
    let number = |name: &str| -> f64 {
        let mut words = said
            .split_ascii_whitespace()
            .skip_while(|word| *word != name);
        let value = words.nth(1).and_then(|word| word.parse().ok());
        value.unwrap_or_else(|| panic!("no {name}: {said}"))
    };
    // Python's own clock has steps of a quarter of a microsecond.
    let bound = number("delay") / 2.0 + number("dispersion") + 1e-6;
    assert!(number("offset").abs() <= bound, "{said}");
    Verdict::Accepts(said)
}
