# Russian: the language of older clients.

## Sessions
session-created = Создана сессия.
session-deleted = Удалена сессия.
session-missing = Сессия отсутствует.
session-not-created = Сессия не создана.
session-not-deleted = Сессия не удалена.
too-many-sessions = Слишком много открытых сессий: разрешено не более { $limit }.
data-uploaded = Данные для сессии успешно загружены.
data-not-uploaded = Ошибка при загрузке данных для сессии.
metadata-uploaded = Метаданные сессии успешно загружены.
metadata-before-data = Данные сессии не были загружены перед установкой метаданных.
metadata-not-uploaded = Ошибка при загрузке метаданных сессии.
options-set = Параметры сессии успешно установлены.
options-not-set = Ошибка при установке параметров сессии.
option-bad-value = Параметр "{ $option }" имеет недопустимое значение. Допустимые значения: { $allowed }.
option-bad-text = Параметр "{ $option }" должен быть строкой длиной до { $max } символов.
option-unsupported = Параметр "{ $option }" со значением "{ $value }" недоступен на этом шлюзе: нужное для него не настроено.
option-foreign-ca = Параметр "caId" называет ЦС, который не выдавал сертификат ключа.
option-needs-certificate = Параметр "embedCertificateType" со значением "nothing" не поддерживается, если "cadesType" не "undefined". Допустимые значения: signerCert, signerAndCaCert, signerCertAndCaInfo.

## Permissions
permission-granted = Запрос на использование ЭЦП успешно обработан. Количество попыток: { $uses }.
permission-refused = Запрос на использование ЭЦП отклонен пользователем.
permission-bad-uses = Запрос на использование ЭЦП содержит неправильный формат параметра "accessTimesNumber".
idempotency-key-reused = Этот ключ идемпотентности уже использован для другого запроса.
idempotency-key-bad = Ключ идемпотентности содержит от 1 до { $max } печатных символов ASCII.
permission-not-granted = Запрос на использование ЭЦП не обработан.
permission-found = Разрешение на использование ЭЦП найдено.
permission-revoked = Разрешение на использование ЭЦП отозвано.
permission-not-found = Разрешение на использование ЭЦП не найдено.
permission-unknown = Разрешение на использование ЭЦП отсутствует.
permission-used-up = Разрешение на использование ЭЦП исчерпано.
permission-expired = Срок действия разрешения на использование ЭЦП истек.
permission-was-revoked = Разрешение на использование ЭЦП было отозвано.
permission-other-key = Разрешение на использование ЭЦП выдано для других ключей.
permission-other-content = Разрешение на использование ЭЦП выдано для других данных.
permission-by-policy = Этому клиенту не разрешено подписывать этим ключом.
permission-too-many-waiting = Слишком много запросов на использование ЭЦП ожидают решения: разрешено не более { $limit }.
permission-too-many = Слишком много действующих разрешений на использование ЭЦП: разрешено не более { $limit }.

## Signatures
signature-started = Инициирована асинхронная операция создания электронной подписи.
signature-not-started = Ошибка при инициировании асинхронной операции создания электронной подписи.
signature-created = Электронная подпись успешно создана.
signature-pending = Операция "Создание электронной подписи" находится в стадии выполнения.
signature-not-created = Электронная подпись не создана.
signature-uploaded = Данные ЭЦП успешно загружены.
signature-not-uploaded = Ошибка при загрузке данных ЭЦП.
verification-started = Инициирована асинхронная операция проверки электронной подписи.
verification-not-started = Ошибка при инициировании асинхронной операции проверки электронной подписи.
verification-pending = Операция "Проверка электронной подписи" находится в стадии выполнения.
signature-valid = Электронная подпись действительна.
signature-not-valid = Электронная подпись недействительна.
signature-not-verified = Электронная подпись не проверена.
signed-data-found = Подписанные данные получены.
signed-data-not-found = Подписанные данные не получены.

## Time stamps
time-stamp-started = Инициирована операция создания метки времени.
time-stamp-not-started = Ошибка при инициировании асинхронной операции создания метки времени.
time-stamp-created = Метка времени успешно создана.
time-stamp-pending = Операция "Создание метки времени" находится в стадии выполнения.
time-stamp-not-created = Метка времени не создана.
time-stamp-uploaded = Данные метки времени успешно загружены.
time-stamp-not-uploaded = Данные метки времени не загружены.
time-stamp-check-started = Инициирована операция проверки метки времени.
time-stamp-valid = Метка времени действительна.
time-stamp-not-valid = Метка времени не действительна ({ $detail }).
time-stamp-not-checked = Метка времени не проверена.

## Keys and certificates
key-chosen = Ключевой контейнер сессии успешно установлен.
key-not-chosen = Ошибка при установке ключевого контейнера сессии.
key-checked = Проверка ключевого контейнера сессии выполнена.
key-not-checked = Ошибка при проверке ключевого контейнера сессии.
key-usable = Ключ может быть использован.
key-without-certificate = Ключ не может быть использован: для него нет сертификата.
key-agreement-none = Ключи согласования не поддерживаются.
certificate-found = Информация о сертификате получена.
certificate-not-found = Ошибка при получении информации о сертификате.
key-type-unknown = Неизвестный тип ключа. Допустимые значения: signature, keyAgreement.

## The service
services-ready = Сервисы находятся в работоспособном состоянии.
crypto-unavailable = Сервис выполнения криптографических операций не запущен.
storage-unavailable = Сервис хранения данных не запущен.
queue-full = Очередь операций заполнена. Повторите запрос через { $seconds } с.
language-changed = Запрос на смену текущего языка выполнен.
language-unknown = Неизвестный язык. Допустимые значения: uk, ru, en.
features-listed = Перечень возможностей сервиса получен.
authorities-listed = Перечень центров сертификации получен.
tokens-listed = Перечень подключенных носителей получен.
operation-failed = Операция не выполнена.

## Requests that are not answered
caller-unknown = Неизвестный клиент: нужен действующий ключ доступа.
origin-foreign = Страницам этого источника не разрешено пользоваться сервисом.
host-foreign = Сервис не отвечает на запросы по этому имени узла.
scope-missing = Вам не разрешено пользоваться этим сервисом: он не входит в ваш доступ.
route-unknown = Такого ресурса нет.
method-not-allowed = Метод не поддерживается. Разрешенные методы: { $allow }.
body-too-long = Тело запроса слишком велико: разрешено не более { $limit } байтов.
too-many-requests = Слишком много запросов: повторите через { $seconds } с.
too-many-waiting = Слишком много ваших запросов ожидают ответа: повторите через { $seconds } с.
body-too-slow = Тело запроса не поступило вовремя.
body-broken = Тело запроса не удалось прочитать.
body-not-json = Тело запроса не является JSON-объектом.
body-missing-member = В теле запроса нет строки "{ $name }".

## Causes of failures
cause-frozen = Подпись уже запрошена, поэтому данные, параметры и ключ сессии нельзя изменять.
cause-no-content = Данные сессии не были загружены.
cause-no-signature = Данные ЭЦП не были загружены.
cause-not-verified = Проверка электронной подписи не была инициирована.
cause-detached = Подпись не содержит подписанных данных.
cause-not-a-signature = Загруженные данные не являются электронной подписью: { $detail }.
cause-armor = Данные ЭЦП не являются ни DER, ни целым PEM или Base64.
cause-not-requested = Создание электронной подписи не было запрошено.
cause-no-time-stamp = Метка времени не запрашивалась и не загружалась.
cause-time-stamp-not-had = Метка времени не получена ({ $detail }).
cause-overtaken = Сессию одновременно изменяет другой запрос.
cause-not-supported-yet = Операция пока не поддерживается.
cause-no-content-time-stamp = Ничего не подписано: метка времени на данные не получена ({ $detail }).
cause-not-completed = Подпись создана, но нужное для её формата не получено ({ $detail }). Запросите подпись ещё раз: будет дополнена та же подпись, разрешение не расходуется.
cause-internal = Внутренняя ошибка сервиса.
cause-body-type = Content-Type должен быть application/octet-stream, application/json или multipart/form-data.
cause-not-json = Тело запроса не является JSON-объектом.
cause-missing-member = В теле запроса нет строки "{ $name }".
cause-missing-element = В форме нет элемента "{ $name }".
cause-bad-form = Форму multipart/form-data не удалось прочитать.
cause-bad-base64 = Данные "{ $name }" не являются корректной строкой Base64.
cause-bad-permission = "accessTokenUuid" не является строкой.
cause-pin-missing = PIN-код отсутствует: "keyStorePassword" пуст.
cause-bad-pin = "keyStorePassword" не является PIN-кодом: нужна строка длиной до { $max } байтов или целое число.
cause-pin-and-permission = Нужно что-то одно: "accessTokenUuid" или "keyStorePassword".
cause-bad-uri = "keyStorePath" не является пригодным pkcs11: URI: { $detail }.
cause-key-container = Файловые ключевые контейнеры не принимаются: ключи здесь хранятся на токенах. Укажите "keyStorePath" с pkcs11: URI.
cause-no-key = Ключ не выбран, а ключа по умолчанию у этого клиента нет.
cause-unknown-key = Такого ключа, разрешенного этому клиенту, нет.
cause-foreign-key = Этому клиенту не разрешено пользоваться этим ключом.
cause-unknown-token = Токен, соответствующий этому URI, не подключен.
cause-token-ambiguous = Этому URI соответствует несколько токенов ({ $count }); добавьте серийный номер.
cause-key-not-found = Такого ключа на токене нет.
cause-key-ambiguous = На токене несколько подходящих ключей ({ $count }); укажите ключ по его id.
cause-not-supported = Ключ или токен не поддерживает эту операцию: { $detail }.
cause-no-public-key = Для ключа нет ни открытого ключа, ни сертификата, поэтому его подписи нельзя проверить.
cause-no-certificate = Для ключа нет сертификата.
cause-certificate-not-yet-valid = Сертификат ещё не действует: его срок начинается { $time }.
cause-certificate-expired = Срок действия сертификата истёк { $time }; его нужно перевыпустить.
cause-certificate-replaced = Сертификат заменён новым; выберите ключ по имени.
cause-quarantined = Ключ заблокирован: он создал неправильную подпись.
cause-no-chain = Сертификаты центра сертификации для этого ключа неизвестны.
cause-bulk-count = Нужно от 1 до { $max } хешей.
cause-bulk-attached = Для хешей возможна только открепленная подпись.
cause-bulk-hash = Длина хеша { $len } байтов не подходит для этого ключа.
cause-bulk-timeout = Подписи не были созданы вовремя.
cause-pin-refused = PIN-код не принят: { $detail }.
cause-pin-forgotten = Сервис был перезапущен, и PIN-код запроса утрачен.
cause-key-not-usable = Ключ на токене нельзя использовать.
cause-device = Токен не выполнил операцию: { $detail }.
cause-wrong-signature = Токен создал неправильную подпись; ключ заблокирован.
cause-outcome-unknown = Неизвестно, создал ли токен подпись.
cause-deadline-passed = Время ожидания токена истекло.
cause-cancelled = Операция отменена.
cause-resolved-signed = Оператор выяснил, что токен выполнил подпись, но она утеряна.
cause-resolved-not-signed = Оператор выяснил, что токен не выполнил подпись.

## Words of certificate information
certificate-owner = Владелец сертификата
certificate-issuer = Издатель сертификата
certificate-public-key = Открытый ключ
certificate-serial = Серийный номер сертификата
certificate-not-before = Действителен с
certificate-not-after = Действителен до
certificate-extensions = Расширения сертификата
certificate-full-name = Полное имя
certificate-organization = Организация
certificate-unit = Подразделение
certificate-title = Должность
certificate-country = Страна
certificate-region = Область
certificate-locality = Населенный пункт
certificate-id = Идентификатор
certificate-distinguished-name = Отличительное имя
certificate-key-algorithm = Алгоритм ключа
certificate-key-value = Значение открытого ключа
certificate-key-usage = Использование ключа
