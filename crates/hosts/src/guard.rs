//! What stands between a decision and a provider's bill.
//!
//! Nothing is asked of a provider but through here: a dry run unless it was switched off, a budget of
//! actions within an hour, and only what the provider itself lists, in a state for which the action makes
//! sense.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::provider::{Action, InstanceId, Listing, Provider, ProviderError, Standing, State};

/// The time that a budget is for.
const HOUR: Duration = Duration::from_hours(1);

/// Most actions within an hour; one counts when it is asked for, whatever comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// In all.
    pub actions: usize,
    /// On one instance.
    pub per_instance: usize,
}

/// An action that may be taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What.
    pub action: Action,
    /// To which instance.
    pub id: InstanceId,
    /// It will only be said, not done.
    pub is_dry: bool,
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// The provider was asked, and takes it on.
    Asked,
    /// Nobody was asked: it is a dry run.
    Dry,
}

/// Why nothing was asked of the provider, or nothing came of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// It has to wait.
    #[error("{done} actions within an hour are all that is allowed{}", .of.as_ref().map(|id| format!(" on {id}")).unwrap_or_default())]
    OverBudget {
        /// Actions of the last hour.
        done: usize,
        /// On one instance; none = in all.
        of: Option<InstanceId>,
    },
    /// The provider has no such instance.
    #[error("the provider does not list {0}")]
    Absent(InstanceId),
    /// How the instance is cannot be told.
    #[error("how {id} is cannot be told: {why}")]
    Untold {
        /// The instance.
        id: InstanceId,
        /// Why.
        why: &'static str,
    },
    /// The instance is in no state for it.
    #[error("{id} is {state}: there is nothing to {wish}")]
    Unfit {
        /// The instance.
        id: InstanceId,
        /// How it is.
        state: State,
        /// What was wanted.
        wish: &'static str,
    },
    /// The provider.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// A provider that cannot be asked for too much.
pub struct Guard {
    provider: Box<dyn Provider>,
    is_dry: bool,
    budget: Budget,
    /// When each action of the last hour was asked for.
    spent: Mutex<Vec<(Instant, InstanceId)>>,
}

impl Guard {
    /// Guards a provider. A dry one asks it for listings alone.
    pub fn new(provider: impl Provider, is_dry: bool, budget: Budget) -> Self {
        Self { provider: Box::new(provider), is_dry, budget, spent: Mutex::default() }
    }

    /// Whether it only says what it would do.
    pub fn is_dry(&self) -> bool {
        self.is_dry
    }

    /// All instances.
    ///
    /// # Errors
    /// The provider did not answer, or not so that it could be understood.
    pub async fn list(&self) -> Result<Listing, ProviderError> {
        self.provider.list().await
    }

    /// Counts so many actions at least, which an earlier process asked for, as if they were of this
    /// moment.
    pub fn remember(&self, id: &InstanceId, actions: u32) {
        let mut spent = self.lock();
        let known = spent.iter().filter(|(_, of)| of == id).count();
        let actions = usize::try_from(actions).unwrap_or(usize::MAX).min(self.budget.actions);
        for _ in known..actions {
            spent.push((Instant::now(), id.clone()));
        }
    }

    /// What would bring an instance back: one that runs is rebooted, one that is stopped is started.
    /// Asks the provider how it is; changes nothing.
    ///
    /// # Errors
    /// [`ActError`]: nothing may or can be done now.
    pub async fn revival(&self, id: &InstanceId) -> Result<Plan, ActError> {
        self.affords(id)?;
        let state = self.state(id).await?;
        let action = [Action::Reboot, Action::Start].into_iter().find(|action| action.fits(state));
        let unfit = || ActError::Unfit { id: id.clone(), state, wish: "revive" };
        self.plan(action.ok_or_else(unfit)?, id)
    }

    /// Looks whether an action may be taken now. Asks the provider how the instance is; changes nothing.
    ///
    /// # Errors
    /// [`ActError`]: it may or can not.
    pub async fn consider(&self, action: Action, id: &InstanceId) -> Result<Plan, ActError> {
        self.affords(id)?;
        let state = self.state(id).await?;
        if !action.fits(state) {
            let wish = match action {
                Action::Start => "start",
                Action::Stop => "stop",
                Action::Reboot => "reboot",
            };
            return Err(ActError::Unfit { id: id.clone(), state, wish });
        }
        self.plan(action, id)
    }

    /// Takes an action that was considered.
    ///
    /// # Errors
    /// [`ActError`]: the budget is used up by now, or the provider refuses.
    pub async fn take(&self, plan: &Plan) -> Result<Acted, ActError> {
        if plan.is_dry {
            return Ok(Acted::Dry);
        }
        self.spend(&plan.id)?;
        self.provider.act(plan.action, &plan.id).await?;
        Ok(Acted::Asked)
    }

    fn plan(&self, action: Action, id: &InstanceId) -> Result<Plan, ActError> {
        if !self.provider.supports(action) {
            return Err(ProviderError::Unsupported(action).into());
        }
        Ok(Plan { action, id: id.clone(), is_dry: self.is_dry })
    }

    async fn state(&self, id: &InstanceId) -> Result<State, ActError> {
        let untold = |why| ActError::Untold { id: id.clone(), why };
        match self.provider.list().await?.standing(id) {
            Standing::Listed(State::Unknown) => Err(untold("the provider does not know")),
            Standing::Listed(state) => Ok(state),
            Standing::Absent => Err(ActError::Absent(id.clone())),
            Standing::Untold(why) => Err(untold(why)),
        }
    }

    fn affords(&self, id: &InstanceId) -> Result<(), ActError> {
        check(&self.budget, &self.lock(), id)
    }

    fn spend(&self, id: &InstanceId) -> Result<(), ActError> {
        let mut spent = self.lock();
        check(&self.budget, &spent, id)?;
        spent.push((Instant::now(), id.clone()));
        Ok(())
    }

    /// What was spent within the last hour.
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, InstanceId)>> {
        // Only whole entries come and go under the lock; a poisoned one holds no broken state.
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.retain(|(at, _)| at.elapsed() < HOUR);
        spent
    }
}

fn check(
    budget: &Budget,
    spent: &[(Instant, InstanceId)],
    id: &InstanceId,
) -> Result<(), ActError> {
    if spent.len() >= budget.actions {
        return Err(ActError::OverBudget { done: spent.len(), of: None });
    }
    let on_it = spent.iter().filter(|(_, of)| of == id).count();
    if on_it >= budget.per_instance {
        return Err(ActError::OverBudget { done: on_it, of: Some(id.clone()) });
    }
    Ok(())
}
