//! Calls about operators' accounts.
//!
//! | call, with the JSON it takes | does | answers |
//! |---|---|---|
//! | `GET /operators` | | [`OperatorsDto`] |
//! | `POST /operators`, [`AddOperatorDto`] | makes an account; without a password, with one that is made | [`PasswordDto`] |
//! | `POST /operators/{name}/password`, [`SetPasswordDto`] | gives another password, and ends all sessions | [`PasswordDto`] |
//! | `POST /operators/{name}/{change}` | `disable`, `enable`, `remove`, or `log-out` everywhere | [`DoneDto`] |

use actix_web::{
    HttpResponse,
    web::{Data, Path, Payload},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{dto::SecretText, error::ControlError, json, local_user::LocalUser, read};
use crate::{
    auth::{OperatorError, Operators, Password},
    domain::{
        caller::KeyAccess,
        ids::{KeyName, OperatorName},
        operator::{Operator, OperatorAccount, Role},
        timestamp::Timestamp,
    },
};

/// Every operator's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorsDto {
    /// The accounts, by name.
    pub operators: Vec<OperatorDto>,
}

/// An operator's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorDto {
    /// The operator's name.
    pub name: OperatorName,
    /// What they may do.
    pub role: Role,
    /// The keys that are theirs; absent for all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub keys: Option<Vec<KeyName>>,
    /// They cannot log in.
    pub disabled: bool,
    /// When they were added, in milliseconds since the Unix epoch.
    pub added: Timestamp,
}

/// A new account.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddOperatorDto {
    /// The operator's name.
    pub name: OperatorName,
    /// What they may do.
    pub role: Role,
    /// The keys that are theirs; absent for all.
    #[serde(default)]
    pub keys: Option<Vec<KeyName>>,
    /// Their password; absent where one is to be made.
    #[serde(default)]
    pub password: Option<SecretText>,
}

/// A new password.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPasswordDto {
    /// The password; absent where one is to be made.
    #[serde(default)]
    pub password: Option<SecretText>,
}

/// The password of an account.
#[derive(Serialize, Deserialize)]
pub struct PasswordDto {
    /// The one that was made; absent where it was given. It is told this once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub password: Option<SecretText>,
}

/// It was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneDto {
    /// Always true.
    pub done: bool,
}

impl From<OperatorAccount> for OperatorDto {
    fn from(account: OperatorAccount) -> Self {
        let OperatorAccount { operator: Operator { name, role, keys }, disabled, added, .. } = account;
        let keys = if let KeyAccess::Only(keys) = keys { Some(keys) } else { None };
        Self { name, role, keys, disabled, added }
    }
}

pub(super) async fn list(operators: Data<Operators>) -> Result<HttpResponse, ControlError> {
    let accounts = operators.list().await?;
    Ok(json(&OperatorsDto { operators: accounts.into_iter().map(OperatorDto::from).collect() }))
}

pub(super) async fn add(operators: Data<Operators>, user: LocalUser, body: Payload) -> Result<HttpResponse, ControlError> {
    let AddOperatorDto { name, role, keys, password } = read(body).await?;
    let (password, made) = password_or_new(password)?;
    let operator = Operator { name, role, keys: keys.map_or(KeyAccess::All, KeyAccess::Only) };
    operators.add(operator, password, &user.who()).await?;
    Ok(json(&PasswordDto { password: made }))
}

pub(super) async fn set_password(
    operators: Data<Operators>,
    user: LocalUser,
    name: Path<String>,
    body: Payload,
) -> Result<HttpResponse, ControlError> {
    let SetPasswordDto { password } = read(body).await?;
    let (password, made) = password_or_new(password)?;
    operators.set_password(&name_of(&name)?, password, &user.who()).await?;
    Ok(json(&PasswordDto { password: made }))
}

pub(super) async fn change(
    operators: Data<Operators>,
    user: LocalUser,
    path: Path<(String, String)>,
) -> Result<HttpResponse, ControlError> {
    let (name, change) = path.into_inner();
    let (name, by) = (name_of(&name)?, user.who());
    match change.as_str() {
        "disable" => operators.set_disabled(&name, true, &by).await?,
        "enable" => operators.set_disabled(&name, false, &by).await?,
        "remove" => operators.remove(&name, &by).await?,
        "log-out" => operators.log_out_everywhere(&name, &by).await?,
        _ => return Err(ControlError::UnknownRoute),
    }
    Ok(json(&DoneDto { done: true }))
}

fn name_of(text: &str) -> Result<OperatorName, ControlError> {
    text.parse().map_err(|_| ControlError::Operator(OperatorError::Gone))
}

/// The password that was given, or a new one and its text.
fn password_or_new(given: Option<SecretText>) -> Result<(Password, Option<SecretText>), ControlError> {
    match given {
        Some(given) => Ok((Password::chosen(given.reveal()).map_err(OperatorError::from)?, None)),
        None => {
            let made = Password::generate().map_err(OperatorError::from)?;
            let told = SecretText::new(Zeroizing::new(made.reveal().to_owned()));
            Ok((made, Some(told)))
        }
    }
}
