# Ukrainian: the language of the API. Texts of successes and of known failures are those that its clients know.

## Sessions
session-created = Створена сесія.
session-deleted = Сесію видалено.
session-missing = Сесія відсутня.
session-not-created = Сесію не створено.
session-not-deleted = Сесію не видалено.
too-many-sessions = Забагато відкритих сесій: дозволено не більше { $limit }.
data-uploaded = Дані сесії успішно завантажені.
data-not-uploaded = Помилка при завантаженні даних сесії.
metadata-uploaded = Метадані сесії успішно завантажені.
metadata-before-data = Дані сесії не були завантажені перед встановленням метаданих.
metadata-not-uploaded = Помилка при завантаженні метаданих сесії.
options-set = Параметри сесії успішно встановлені.
options-not-set = Помилка при встановленні параметрів сесії.
option-bad-value = Параметр "{ $option }" має недопустиме значення. Допустимі значення: { $allowed }.
option-bad-text = Параметр "{ $option }" має бути рядком довжиною до { $max } символів.
option-unsupported = Параметр "{ $option }" зі значенням "{ $value }" недоступний на цьому шлюзі: потрібне для нього не налаштовано.
option-foreign-ca = Параметр "caId" називає ЦСК, який не видавав сертифікат ключа.
option-needs-certificate = Параметр "embedCertificateType" зі значенням "nothing" не підтримується, якщо "cadesType" не є "undefined". Допустимі значення: signerCert, signerAndCaCert, signerCertAndCaInfo.

## Permissions
permission-granted = Запит на використання ЕП успішно оброблений. Кількість спроб: { $uses }.
permission-refused = Запит на використання ЕП відхилено користувачем.
permission-bad-uses = Запит на використання ЕП містить неправильний формат параметру "accessTimesNumber".
idempotency-key-reused = Цей ключ ідемпотентності вже використано для іншого запиту.
idempotency-key-bad = Ключ ідемпотентності містить від 1 до { $max } друкованих символів ASCII.
permission-not-granted = Запит на використання ЕП не оброблено.
permission-found = Дозвіл на використання ЕП знайдено.
permission-revoked = Дозвіл на використання ЕП відкликано.
permission-not-found = Дозвіл на використання ЕП не знайдено.
permission-unknown = Дозвіл на використання ЕП відсутній.
permission-used-up = Дозвіл на використання ЕП вичерпано.
permission-expired = Термін дії дозволу на використання ЕП закінчився.
permission-was-revoked = Дозвіл на використання ЕП було відкликано.
permission-other-key = Дозвіл на використання ЕП видано для інших ключів.
permission-other-content = Дозвіл на використання ЕП видано для інших даних.
permission-by-policy = Цьому клієнту не дозволено підписувати цим ключем.
permission-too-many-waiting = Забагато запитів на використання ЕП очікують рішення: дозволено не більше { $limit }.
permission-too-many = Забагато чинних дозволів на використання ЕП: дозволено не більше { $limit }.

## Signatures
signature-started = Ініційована операція створення електронного підпису.
signature-not-started = Помилка при ініціюванні асинхронної операції створення електронного підпису.
signature-created = Електронний підпис успішно створений.
signature-pending = Операція "Створення електронного підпису" знаходиться у стадії виконання.
signature-not-created = Електронний підпис не створено.
signature-uploaded = Дані ЕП успішно завантажені.
signature-not-uploaded = Помилка при завантаженні даних ЕП.
verification-started = Ініційована операція перевірки електронного підпису.
verification-not-started = Помилка при ініціюванні асинхронної операції перевірки електронного підпису.
verification-pending = Операція "Перевірка електронного підпису" знаходиться у стадії виконання.
signature-valid = Електронний підпис дійсний.
signature-not-valid = Електронний підпис недійсний.
signature-not-verified = Електронний підпис не перевірено.
signed-data-found = Підписані дані отримано.
signed-data-not-found = Підписані дані не отримано.

## Time stamps
time-stamp-started = Ініційована операція створення позначки часу.
time-stamp-not-started = Помилка при ініціюванні асинхронної операції створення позначки часу.
time-stamp-created = Позначка часу успішно створена.
time-stamp-pending = Операція "Створення позначки часу" знаходиться у стадії виконання.
time-stamp-not-created = Позначку часу не створено.
time-stamp-uploaded = Дані позначки часу успішно завантажені.
time-stamp-not-uploaded = Дані позначки часу не завантажено.
time-stamp-check-started = Ініційована операція перевірки позначки часу.
time-stamp-valid = Позначка часу дійсна.
time-stamp-not-valid = Позначка часу не дійсна ({ $detail }).
time-stamp-not-checked = Позначку часу не перевірено.

## Keys and certificates
key-chosen = Ключовий контейнер сесії успішно встановлено.
key-not-chosen = Помилка при встановленні ключового контейнера сесії.
key-checked = Перевірку ключового контейнера сесії виконано.
key-not-checked = Помилка при перевірці ключового контейнера сесії.
key-usable = Ключ може бути використаний.
key-without-certificate = Ключ не може бути використаний: для нього немає сертифіката.
key-agreement-none = Ключі узгодження не підтримуються.
certificate-found = Інформацію про сертифікат отримано.
certificate-not-found = Помилка при отриманні інформації про сертифікат.
key-type-unknown = Невідомий тип ключа. Допустимі значення: signature, keyAgreement.

## The service
services-ready = Сервіси знаходяться у працездатному стані.
crypto-unavailable = Сервіс виконання криптографічних операцій не запущено.
storage-unavailable = Сервіс зберігання даних не запущено.
queue-full = Черга операцій заповнена. Повторіть запит через { $seconds } с.
language-changed = Запит на зміну поточної мови виконано.
language-unknown = Невідома мова. Допустимі значення: uk, ru, en.
features-listed = Перелік можливостей сервісу отримано.
authorities-listed = Перелік центрів сертифікації отримано.
tokens-listed = Перелік підключених носіїв отримано.
operation-failed = Операцію не виконано.

## Requests that are not answered
caller-unknown = Невідомий клієнт: потрібен дійсний ключ доступу.
origin-foreign = Сторінкам цього джерела не дозволено користуватися сервісом.
host-foreign = Сервіс не відповідає на запити за цією назвою вузла.
scope-missing = Вам не дозволено користуватися цим сервісом: він не входить до вашого доступу.
route-unknown = Такого ресурсу немає.
method-not-allowed = Метод не підтримується. Дозволені методи: { $allow }.
body-too-long = Тіло запиту завелике: дозволено не більше { $limit } байтів.
too-many-requests = Забагато запитів: повторіть через { $seconds } с.
too-many-waiting = Забагато ваших запитів очікують відповіді: повторіть через { $seconds } с.
body-too-slow = Тіло запиту не надійшло вчасно.
body-broken = Тіло запиту не вдалося прочитати.
body-not-json = Тіло запиту не є JSON-об'єктом.
body-missing-member = У тілі запиту немає рядка "{ $name }".

## Causes of failures
cause-frozen = Підпис уже запитано, тому дані, параметри та ключ сесії не можна змінювати.
cause-no-content = Дані сесії не були завантажені.
cause-no-signature = Дані ЕП не були завантажені.
cause-not-verified = Перевірка електронного підпису не була ініційована.
cause-detached = Підпис не містить підписаних даних.
cause-not-a-signature = Завантажені дані не є електронним підписом: { $detail }.
cause-armor = Дані ЕП не є ані DER, ані цілим PEM чи Base64.
cause-not-requested = Створення електронного підпису не було запитано.
cause-no-time-stamp = Позначку часу не було ані запитано, ані завантажено.
cause-time-stamp-not-had = Позначку часу не отримано ({ $detail }).
cause-overtaken = Сесію одночасно змінює інший запит.
cause-not-supported-yet = Операція поки що не підтримується.
cause-no-content-time-stamp = Нічого не підписано: позначку часу на дані не отримано ({ $detail }).
cause-not-completed = Підпис створено, але потрібне для його формату не отримано ({ $detail }). Запитайте підпис ще раз: буде доповнено той самий підпис, дозвіл не витрачається.
cause-internal = Внутрішня помилка сервісу.
cause-body-type = Content-Type має бути application/octet-stream, application/json або multipart/form-data.
cause-not-json = Тіло запиту не є JSON-об'єктом.
cause-missing-member = У тілі запиту немає рядка "{ $name }".
cause-missing-element = У формі немає елемента "{ $name }".
cause-bad-form = Форму multipart/form-data не вдалося прочитати.
cause-bad-base64 = Дані "{ $name }" не є коректним рядком Base64.
cause-bad-permission = "accessTokenUuid" не є рядком.
cause-pin-missing = PIN-код відсутній: "keyStorePassword" порожній.
cause-bad-pin = "keyStorePassword" не є PIN-кодом: потрібен рядок довжиною до { $max } байтів або ціле число.
cause-pin-and-permission = Потрібно щось одне: "accessTokenUuid" або "keyStorePassword".
cause-bad-uri = "keyStorePath" не є придатним pkcs11: URI: { $detail }.
cause-key-container = Файлові ключові контейнери не приймаються: ключі тут зберігаються на токенах. Вкажіть "keyStorePath" з pkcs11: URI.
cause-no-key = Ключ не вибрано, а типового ключа для цього клієнта немає.
cause-unknown-key = Такого ключа, дозволеного цьому клієнту, немає.
cause-foreign-key = Цьому клієнту не дозволено користуватися цим ключем.
cause-unknown-token = Токен, що відповідає цьому URI, не підключено.
cause-token-ambiguous = Цьому URI відповідає кілька токенів ({ $count }); додайте серійний номер.
cause-key-not-found = Такого ключа на токені немає.
cause-key-ambiguous = На токені кілька відповідних ключів ({ $count }); вкажіть ключ за його id.
cause-not-supported = Ключ або токен не підтримує цю операцію: { $detail }.
cause-no-public-key = Для ключа немає ні відкритого ключа, ні сертифіката, тому його підписи не можна перевірити.
cause-no-certificate = Для ключа немає сертифіката.
cause-certificate-not-yet-valid = Сертифікат ще не чинний: його строк починається { $time }.
cause-certificate-expired = Строк чинності сертифіката минув { $time }; його потрібно перевипустити.
cause-certificate-replaced = Сертифікат замінено новим; оберіть ключ за іменем.
cause-quarantined = Ключ заблоковано: він створив неправильний підпис.
cause-no-chain = Сертифікати центру сертифікації для цього ключа невідомі.
cause-bulk-count = Потрібно від 1 до { $max } гешів.
cause-bulk-attached = Для гешів можливий лише відкріплений підпис.
cause-bulk-hash = Довжина гешу { $len } байтів не підходить для цього ключа.
cause-bulk-timeout = Підписи не були створені вчасно.
cause-pin-refused = PIN-код не прийнято: { $detail }.
cause-pin-forgotten = Сервіс було перезапущено, і PIN-код запиту втрачено.
cause-key-not-usable = Ключ на токені не можна використати.
cause-device = Токен не виконав операцію: { $detail }.
cause-wrong-signature = Токен створив неправильний підпис; ключ заблоковано.
cause-outcome-unknown = Невідомо, чи створив токен підпис.
cause-deadline-passed = Час очікування токена вичерпано.
cause-cancelled = Операцію скасовано.
cause-resolved-signed = Оператор з'ясував, що токен виконав підпис, але його втрачено.
cause-resolved-not-signed = Оператор з'ясував, що токен не виконав підпис.

## Words of certificate information
certificate-owner = Власник сертифіката
certificate-issuer = Видавець сертифіката
certificate-public-key = Відкритий ключ
certificate-serial = Серійний номер сертифіката
certificate-not-before = Чинний з
certificate-not-after = Чинний до
certificate-extensions = Розширення сертифіката
certificate-full-name = Повне ім'я
certificate-organization = Організація
certificate-unit = Підрозділ
certificate-title = Посада
certificate-country = Країна
certificate-region = Область
certificate-locality = Населений пункт
certificate-id = Ідентифікатор
certificate-distinguished-name = Розрізнювальне ім'я
certificate-key-algorithm = Алгоритм ключа
certificate-key-value = Значення відкритого ключа
certificate-key-usage = Використання ключа
