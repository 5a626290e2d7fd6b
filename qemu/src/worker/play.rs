//! The publisher while it plays a scenario.

use core::time::Duration;
use std::time::{Instant, SystemTime};

use gnomon_clock::Timeline;
use gnomon_clock::page::{Fields, PageMemory};

use super::{CALIBRATION, Worker};
use crate::estimate::Estimate;
use crate::host::Sample;
use crate::mapping::Mapping;
use crate::player::{Commit, MarkerChange, Next, Piece, Player};
use crate::publish::{Command, Epoch, JOURNAL, Progress, PublishError};
use crate::scenario::{Act, Scenario};

/// Where `counter_id` lies in the page, `seq_count`, the body behind it, and about half of that.
const CODES: usize = 0x0a;
const SEQ_COUNT: usize = 0x0c;
const BODY: usize = 0x10;
const HALF: usize = 0x40;
/// How long events and commands may wait for a page that is written again and again.
const FLIPPING: Duration = Duration::from_millis(2);
/// What an act waits for that never ends.
const FOREVER: Duration = Duration::from_secs(1 << 32);

/// A scenario that is played.
#[derive(Debug)]
pub(super) struct Stage {
    player: Player,
    act: Option<Act>,
    /// When the act is over, once it has begun.
    until: Option<Instant>,
    style: Style,
    /// A page has been made since this was cleared.
    made: bool,
    /// The page that an unfinished update will have written, and since when it is unfinished.
    unfinished: Option<(Fields, SystemTime)>,
    piece: Piece,
    /// Of the page before the scenario.
    stock: Fields,
    /// The time between updates before the scenario.
    interval: Duration,
}

/// How the next page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Whole,
    /// `seq_count` becomes odd, and half of the body is written.
    Half,
    /// The body is written and `seq_count` is not.
    Quiet,
}

impl Stage {
    pub(super) fn has_generation(&self) -> bool {
        self.player.has_generation()
    }

    /// The page before the scenario, for what the scenario has no say in.
    pub(super) fn stock(&self) -> &Fields {
        &self.stock
    }
}

impl Worker {
    /// Sets the stage for a scenario.
    pub(super) fn raise(&mut self, scenario: Scenario) -> Result<(), PublishError> {
        self.strike()?;
        self.shared.report().scenario = Some(Progress::default());
        let stock = self.page.fields()?;
        self.stage = Some(Stage {
            player: Player::new(scenario, self.options.scale, stock),
            act: None,
            until: None,
            style: Style::Whole,
            made: false,
            unfinished: None,
            piece: Piece::HONEST,
            stock,
            interval: self.options.interval,
        });
        Ok(())
    }

    /// Takes the stage down, and puts back what the scenario has changed beside time.
    pub(super) fn strike(&mut self) -> Result<(), PublishError> {
        let Some(stage) = self.stage.take() else {
            return Ok(());
        };
        self.options.interval = stage.interval;
        if matches!((stage.act, stage.until), (Some(Act::Stop(_)), Some(_))) {
            self.obey(Command::Cont)?;
        }
        self.write_constants(&stage.stock)
    }

    /// Plays on; returns the time after which there is more to do.
    pub(super) fn play(&mut self) -> Result<Duration, PublishError> {
        let Some(stage) = &mut self.stage else {
            return Ok(Duration::ZERO);
        };
        let Some(act) = stage.act.clone() else {
            self.next_act();
            return Ok(Duration::ZERO);
        };
        let now = Instant::now();
        match stage.until {
            None if stage.player.is_dirty() && !act.writes() => {
                // All changes so far are shown before anything is done to the page.
                let pause = self.update()?;
                let waiting = self
                    .stage
                    .as_ref()
                    .is_some_and(|stage| stage.player.is_dirty());
                Ok(if waiting {
                    pause.min(CALIBRATION)
                } else {
                    Duration::ZERO
                })
            }
            None => self.begin(&act, now),
            Some(until) if now < until => self.go_on(&act, until - now),
            Some(_) => {
                self.finish(&act)?;
                if let Some(stage) = &mut self.stage {
                    (stage.act, stage.until, stage.style) = (None, None, Style::Whole);
                }
                Ok(Duration::ZERO)
            }
        }
    }

    fn next_act(&mut self) {
        let Some(stage) = &mut self.stage else {
            return;
        };
        let mut report = self.shared.report();
        match stage.player.next() {
            Next::Interval(time) => self.options.interval = time,
            Next::Act { line, act } => {
                (stage.act, stage.made) = (Some(act), false);
                report.scenario.get_or_insert_default().line = line;
            }
            Next::End => {
                stage.act = Some(Act::Wait(FOREVER));
                report.scenario.get_or_insert_default().over = true;
            }
        }
        drop(report);
        self.shared.changed.notify_all();
    }

    fn begin(&mut self, act: &Act, now: Instant) -> Result<Duration, PublishError> {
        match act {
            Act::Wait(_) | Act::Freeze(_) | Act::Flip(_) => {}
            Act::Odd(_) => self.leave_odd()?,
            Act::Update | Act::Half(_) | Act::Quiet => {
                if let Some(stage) = &mut self.stage {
                    stage.style = match act {
                        Act::Half(_) => Style::Half,
                        Act::Quiet => Style::Quiet,
                        _ => Style::Whole,
                    };
                }
                let pause = self.update()?;
                if !self.stage.as_ref().is_some_and(|stage| stage.made) {
                    return Ok(pause.min(CALIBRATION));
                }
            }
            Act::Stop(_) => self.obey(Command::Stop)?,
            Act::Reset => self.obey(Command::Reset)?,
            Act::Say(words) => (self.notice)(words),
        }
        if let Some(stage) = &mut self.stage {
            stage.until = Some(now + act.duration());
        }
        Ok(match act {
            // The page is as new as can be.
            Act::Wait(time) => self.options.interval.min(*time),
            _ => Duration::ZERO,
        })
    }

    fn go_on(&mut self, act: &Act, left: Duration) -> Result<Duration, PublishError> {
        match act {
            Act::Wait(_) => Ok(self.update()?.min(left)),
            Act::Flip(_) => {
                self.flip(left.min(FLIPPING))?;
                Ok(Duration::ZERO)
            }
            _ => Ok(left),
        }
    }

    fn finish(&mut self, act: &Act) -> Result<(), PublishError> {
        if let Act::Stop(_) = act {
            self.obey(Command::Cont)?;
        }
        // Something else may have written the page whole meanwhile.
        let unfinished = self.stage.as_ref().and_then(|stage| stage.unfinished);
        match unfinished {
            Some((fields, _)) => self.write(&fields, true),
            None => Ok(()),
        }
    }

    /// Writes the page again and again.
    fn flip(&mut self, time: Duration) -> Result<(), PublishError> {
        let until = Instant::now() + time;
        if let Some(fields) = &mut self.written {
            while Instant::now() < until {
                fields.seq_count = self.page.publish(fields)?;
            }
        }
        Ok(())
    }

    /// Begins an update, which [`finish`](Self::finish) ends with the page as it was.
    fn leave_odd(&mut self) -> Result<(), PublishError> {
        let seq_count = self.page.fields()?.seq_count.wrapping_add(1) | 1;
        self.page.write(SEQ_COUNT, &seq_count.to_le_bytes())?;
        let valid = self.shared.report().valid;
        if let (Some(fields), Some(stage)) = (&mut self.written, &mut self.stage) {
            stage.unfinished = valid.then(|| (*fields, SystemTime::now()));
            fields.seq_count = seq_count;
        }
        Ok(())
    }

    /// Publishes what the scenario makes of this estimate.
    pub(super) fn publish_scene(
        &mut self,
        estimate: &Estimate,
        sample: &Sample,
        mapping: &Mapping,
    ) -> Result<(), PublishError> {
        if self.paused {
            return Ok(());
        }
        let Some(stage) = &mut self.stage else {
            return Ok(());
        };
        if stage.act.is_none() {
            return Ok(()); // what comes before the first act is not known yet
        }
        // None if the scenario leaves the range of time: the page stays as it is.
        stage.made = true;
        let Some((wanted, commit, piece)) = stage.player.page(estimate, sample, mapping) else {
            return Ok(());
        };
        let style = stage.style;
        let raw = stage.player.is_raw();
        stage.piece = piece;
        match commit {
            Commit::Forced(MarkerChange::New) => {
                let found = self.page.fields()?;
                self.new_marker(&found);
            }
            Commit::Forced(MarkerChange::Is(marker)) if marker != self.marker => {
                self.marker = marker;
                self.promises.forget();
                self.shared.report().disruptions += 1;
            }
            _ => {}
        }
        let allowed = if raw {
            self.promises.allow(&wanted).then_some(wanted)
        } else {
            self.promises.reconcile(&wanted)
        };
        let fields = match allowed {
            Some(fields) => fields,
            None if raw || commit != Commit::Next => {
                self.promises.forget();
                self.shared.report().scenario.get_or_insert_default().broken += 1;
                wanted
            }
            None => {
                self.shared.report().kept += 1;
                return Ok(());
            }
        };
        self.write_constants(&fields)?;
        match style {
            Style::Whole => self.write(&fields, true),
            Style::Half => self.write_half(&fields),
            Style::Quiet => self.write_quietly(&fields),
        }
    }

    fn write_half(&mut self, fields: &Fields) -> Result<(), PublishError> {
        let fields = self.compose(fields, true)?;
        let bytes = fields.to_bytes();
        let begun = SystemTime::now();
        self.leave_odd()?;
        self.page
            .write(BODY, bytes.get(BODY..HALF).unwrap_or_default())?;
        if let Some(written) = &mut self.written {
            written.disruption_marker = fields.disruption_marker;
        }
        if let Some(stage) = &mut self.stage {
            stage.unfinished = Some((fields, begun));
        }
        Ok(())
    }

    fn write_quietly(&mut self, fields: &Fields) -> Result<(), PublishError> {
        let mut fields = self.compose(fields, true)?;
        fields.seq_count = self.page.fields()?.seq_count;
        let bytes = fields.to_bytes();
        let begun = SystemTime::now();
        for range in [CODES..SEQ_COUNT, BODY..bytes.len()] {
            let start = range.start;
            self.page
                .write(start, bytes.get(range).unwrap_or_default())?;
        }
        self.wrote(&fields, true, begun);
        Ok(())
    }

    /// Writes magic, size and version if they are not these.
    fn write_constants(&mut self, fields: &Fields) -> Result<(), PublishError> {
        let found = self.page.fields()?;
        let constants = |fields: &Fields| (fields.magic, fields.size, fields.version);
        if constants(&found) != constants(fields) {
            let bytes = fields.to_bytes();
            self.page.write(0, bytes.get(..CODES).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Keeps the journal of a scenario.
    pub(super) fn note_epoch(&mut self, fields: &Fields, begun: SystemTime) {
        let counter = self.counter.id;
        let Some(stage) = &mut self.stage else {
            return;
        };
        let begun = stage.unfinished.take().map_or(begun, |(_, since)| since);
        let valid = Timeline::from_page(fields, counter).is_ok();
        let mut journal = self.shared.journal();
        let full = journal.len() >= JOURNAL;
        match journal.last_mut() {
            Some(last) if (last.marker, last.valid) == (fields.disruption_marker, valid) => {
                let known = last.truth.last() == Some(&stage.piece) || last.truth.len() >= JOURNAL;
                last.truth.extend((!known).then_some(stage.piece));
            }
            _ if !full => journal.push(Epoch {
                marker: fields.disruption_marker,
                valid,
                begun,
                done: SystemTime::now(),
                truth: vec![stage.piece],
            }),
            _ => {}
        }
    }
}
