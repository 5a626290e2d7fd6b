//! HTTP in the service loop.

use core::time::Duration;

use gnomon_clock::Counter;

use super::served::{Core, Network, instant};
use crate::http::answer::Answer;
use crate::http::{Need, page};
use crate::machine::Machine;
use crate::net::port::FramePort;

impl<M: Machine, C: Counter, P: FramePort> Core<'_, M, C, P> {
    /// Looks after the connections if there is a reason to, and fills in one answer at most. Returns whether there
    /// may be more to do.
    pub(super) fn follow_http(&mut self) -> bool {
        let (Some(uptime), Some(Network { stack, .. })) = (self.uptime, &mut self.network) else {
            return false;
        };
        if !stack.take_news() && !self.http.is_due(uptime) {
            return false;
        }
        self.http_work(uptime)
    }

    #[inline(never)]
    fn http_work(&mut self, uptime: Duration) -> bool {
        if self.history.is_due(uptime) {
            let reading = self.clock.reading();
            let replies = self.ntp.counters().replies();
            self.history.record(uptime, &reading, replies);
        }
        let marker = self.clock.stamp().marker;
        let Some(Network { stack, .. }) = &mut self.network else {
            return false;
        };
        self.http.guard(stack, marker);
        let now = instant(Some(uptime));
        let Some((index, need)) = self.http.look(stack, uptime, now, self.history.due()) else {
            return false;
        };
        match need {
            Need::Answer(request) => {
                let mut answer = Answer::default();
                let history = core::mem::take(&mut self.history);
                answer.fill(request, &self.view(), &history);
                self.history = history;
                if let Some(Network { stack, .. }) = &mut self.network {
                    self.http.answer(stack, index, &answer);
                }
            }
            Need::Plain => {
                let plain = page::plain(&self.view());
                if let Some(Network { stack, .. }) = &mut self.network {
                    self.http.plain(stack, index, plain.as_str());
                }
            }
        }
        // The next look sends it, and asks the next one.
        if let Some(Network { stack, .. }) = &mut self.network {
            stack.wake();
        }
        true
    }
}
