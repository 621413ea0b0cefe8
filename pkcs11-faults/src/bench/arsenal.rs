//! The armed faults, in the order in which they were armed.

use crate::{
    fault::{Effect, FAULTS_MAX, Fault, FaultError, Moment, Times},
    function::{Function, FunctionSet},
    hotline::Caller,
    protocol::ArmedFault,
    token::TokenId,
};

/// All faults that wait for their calls.
#[derive(Debug, Default)]
pub(super) struct Arsenal {
    armed: Vec<ArmedFault>,
    last_id: u64,
}

impl Arsenal {
    pub(super) fn arm(&mut self, fault: Fault) -> Result<u64, FaultError> {
        fault.check()?;
        if self.armed.len() >= FAULTS_MAX {
            return Err(FaultError::TooMany);
        }
        self.last_id += 1;
        self.armed.push(ArmedFault { id: self.last_id, seen: 0, met: 0, fault });
        Ok(self.last_id)
    }

    /// Whether it was armed.
    pub(super) fn disarm(&mut self, id: u64) -> bool {
        let before = self.armed.len();
        self.armed.retain(|armed| armed.id != id);
        self.armed.len() < before
    }

    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    pub(super) fn list(&self) -> &[ArmedFault] {
        &self.armed
    }

    /// Functions whose calls change something here.
    pub(super) fn interest(&self) -> FunctionSet {
        let sets = self.armed.iter().map(|armed| armed.fault.until.map_or(armed.fault.on, |until| armed.fault.on.union(until.into())));
        sets.fold(FunctionSet::default(), FunctionSet::union)
    }

    /// Counts a call, and tells what happens to it before and after the real module is called.
    pub(super) fn meet(&mut self, caller: &Caller) -> (Vec<Effect>, Vec<Effect>) {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for armed in self.armed.iter_mut().filter(|armed| concerns(&armed.fault, caller)) {
            armed.seen += 1;
            if armed.seen > armed.fault.skip {
                armed.met += 1;
                match armed.fault.moment {
                    Moment::Before => before.extend(armed.fault.effects.iter().cloned()),
                    Moment::After => after.extend(armed.fault.effects.iter().cloned()),
                }
            }
        }
        self.armed.retain(|armed| match armed.fault.times {
            Times::Every => true,
            Times::Count(times) => armed.met < times,
        });
        (before, after)
    }

    /// Ends the faults that wait for this function's success. Whether there were any.
    pub(super) fn succeeded(&mut self, function: Function, token: Option<&TokenId>) -> bool {
        let before = self.armed.len();
        self.armed.retain(|armed| armed.fault.until != Some(function) || !is_about(&armed.fault, token));
        self.armed.len() < before
    }
}

fn concerns(fault: &Fault, caller: &Caller) -> bool {
    fault.on.contains(caller.function) && is_about(fault, caller.token.as_ref()) && (fault.length_queries || !caller.length_query)
}

fn is_about(fault: &Fault, token: Option<&TokenId>) -> bool {
    fault.token.as_ref().is_none_or(|name| token.is_some_and(|token| token.is(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rv::Rv;

    fn call(function: Function) -> Caller {
        let token = Some(TokenId { serial: "S1".to_owned(), label: "one".to_owned() });
        Caller { pid: 1, function, token, length_query: false }
    }

    fn returned(arsenal: &mut Arsenal, function: Function) -> Option<Rv> {
        match arsenal.meet(&call(function)).0.first() {
            Some(Effect::Return(rv)) => Some(*rv),
            _ => None,
        }
    }

    #[test]
    fn a_fault_lets_the_first_calls_through_meets_its_number_and_is_spent() {
        let mut arsenal = Arsenal::default();
        arsenal.arm(Fault::on(Function::C_Sign).skip(1).times(2).returns(Rv::DEVICE_ERROR)).unwrap();
        let met: Vec<bool> = (0..5).map(|_| returned(&mut arsenal, Function::C_Sign).is_some()).collect();
        assert_eq!(met, [false, true, true, false, false]);
        assert!(arsenal.list().is_empty());
    }

    #[test]
    fn a_fault_that_meets_every_call_stays_until_it_is_disarmed() {
        let mut arsenal = Arsenal::default();
        let id = arsenal.arm(Fault::on(Function::C_Sign).every_time().returns(Rv::DEVICE_ERROR)).unwrap();
        assert!((0..100).all(|_| returned(&mut arsenal, Function::C_Sign).is_some()));
        assert!(arsenal.disarm(id) && !arsenal.disarm(id));
        assert_eq!(returned(&mut arsenal, Function::C_Sign), None);
    }

    #[test]
    fn a_fault_meets_only_its_functions_and_its_token_and_no_length_queries() {
        let mut arsenal = Arsenal::default();
        arsenal.arm(Fault::on(Function::C_Sign).token("two").every_time().returns(Rv::DEVICE_ERROR)).unwrap();
        assert_eq!(returned(&mut arsenal, Function::C_Sign), None);
        arsenal.arm(Fault::on(Function::C_Sign).token("one").returns(Rv::DEVICE_ERROR)).unwrap();
        assert_eq!(returned(&mut arsenal, Function::C_Login), None);
        assert_eq!(arsenal.meet(&Caller { length_query: true, ..call(Function::C_Sign) }), (vec![], vec![]));
        assert_eq!(arsenal.meet(&Caller { token: None, ..call(Function::C_Sign) }), (vec![], vec![]));
        assert_eq!(returned(&mut arsenal, Function::C_Sign), Some(Rv::DEVICE_ERROR));
    }

    #[test]
    fn a_fault_ends_when_the_function_it_waits_for_has_succeeded() {
        let mut arsenal = Arsenal::default();
        arsenal.arm(Fault::on(Function::C_Sign).every_time().returns(Rv::USER_NOT_LOGGED_IN).until(Function::C_Login)).unwrap();
        assert!(arsenal.interest().contains(Function::C_Login));
        assert!(!arsenal.succeeded(Function::C_OpenSession, None));
        assert!(arsenal.succeeded(Function::C_Login, None));
        assert_eq!(returned(&mut arsenal, Function::C_Sign), None);
    }

    #[test]
    fn effects_of_several_faults_follow_each_other() {
        let mut arsenal = Arsenal::default();
        arsenal.arm(Fault::on(Function::C_Sign).hangs()).unwrap();
        arsenal.arm(Fault::on(Function::C_Sign).removes_the_token()).unwrap();
        arsenal.arm(Fault::on(Function::C_Sign).flips_a_bit()).unwrap();
        let (before, after) = arsenal.meet(&call(Function::C_Sign));
        assert_eq!(before.len(), 2);
        assert_eq!(before[1], Effect::Remove);
        assert_eq!(after, [Effect::FlipBit]);
    }
}
