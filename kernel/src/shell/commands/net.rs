//! `net`: the network device, addresses, frames.

use core::fmt::{self, Write};

use crate::report::{Address, Mac, View, ipv6};

pub(in crate::shell) fn net(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    let net = match &view.net {
        Ok(net) => net,
        Err(why) => return writeln!(out, "no network: {why}"),
    };
    writeln!(out, "device      {}", net.nic)?;
    writeln!(out, "mac         {}", Mac(net.mac))?;
    writeln!(out, "address     {}", Address(net))?;
    match net.gateway {
        Some(gateway) => writeln!(out, "gateway     {gateway}")?,
        None => writeln!(out, "gateway     none")?,
    }
    ipv6(out, "ipv6        ", &net.ipv6)?;
    let frames = &net.frames;
    writeln!(
        out,
        "frames      received {} (ntp {}, stack {}), sent {}, dropped {}, kicks {}",
        frames.received, frames.ntp, frames.stack, frames.sent, frames.dropped, frames.kicks,
    )?;
    if frames.lies > 0 {
        writeln!(
            out,
            "            {} ring entries that no honest device writes",
            frames.lies
        )?;
    }
    let health = &net.health;
    if let Some(trouble) = health.trouble {
        writeln!(
            out,
            "resets      {}, the last since {trouble}",
            health.resets
        )?;
    }
    if let Some(why) = health.dead {
        writeln!(out, "dead        {why}")?;
    }
    if net.is_mute {
        writeln!(
            out,
            "wake-ups    none by the device, which is looked at every millisecond"
        )?;
    }
    Ok(())
}
