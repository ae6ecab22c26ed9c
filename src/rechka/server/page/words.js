// The page's words in both languages. Elements with data-t get theirs; `t` is for scripts.

const WORDS = {
  ru: {
    model: "Модель", drop: "Перетащите запись сюда", another: "Другая запись", dropMore: "или выберите файл: WAV, MP3, M4A, OGG, видео",
    mic: "Говорить", micStop: "Остановить", micMore: "слова появляются по ходу речи", more: "Настройки",
    punctuate: "Знаки препинания и заглавные", split: "Стерео: у каждого канала свой говорящий",
    queue: "Записи — в очередь на сервере: страницу можно закрыть",
    hotwords: "Ожидаемые слова", hotwordsHint: "договор, Ромашка:8 — через запятую",
    key: "Ключ доступа", keyMore: "хранится, пока открыта эта вкладка", enter: "Войти", keyGood: "Ключ принят",
    play: "Слушать", pause: "Пауза", silent: "Звука нет: открыта запись из списка", other: "English",
    connecting: "Соединяюсь…", listening: "Слушаю", reading: "Читаю файл…", recognising: "Распознаю", done: "Готово",
    sending: "Отправляю", queued: "Принято в очередь", copy: "Копировать", copied: "Скопировано",
    lost: "Связь прервалась: что успели сказать, осталось", away: "Сервер остановился: что успели сказать, осталось",
    noMic: "Нет доступа к микрофону", noAudio: "Браузер не смог прочитать этот файл", nothing: "Речи не слышно",
    silence: "Говорите…", speaker: "Говорящий", secure: "Микрофон работает только по https или на localhost",
    input: "Запись или микрофон", player: "Запись", wave: "Место в записи", saves: "Сохранить", transcript: "Текст",
    progress: "Сколько сделано", sure: "Сомнения модели", microphone: "Микрофон",
    jobs: "Очередь", history: "История", recent: "Недавнее в этом браузере", search: "Искать в сказанном",
    none: "Пока ничего", found0: "Ничего не найдено", next: "Показать ещё", open: "Открыть", remove: "Удалить",
    sure1: "Точно удалить?", forget: "Забыть всё", sureAll: "Точно забыть?", cancel: "Отменить", retry: "Повторить",
    textless: "без текста", closed: "Ключ не даёт сюда доступа", live: "вживую",
    status_queued: "ждёт", status_running: "распознаётся", status_done: "готово", status_failed: "не вышло",
    status_cancelled: "отменено",
    keys: "Клавиши: пробел — слушать, ← → — на 2 секунды или по словам, M — микрофон, / — поиск",
    "service.unauthorized": "Сервер не знает этого ключа", "service.forbidden": "Ключ не даёт на это права",
    "service.quota": "Запас этого ключа исчерпан", "service.overloaded": "Сервер занят, попробуйте чуть позже",
    "service.draining": "Сервер останавливается", "service.too_large": "Запись слишком велика для этого сервера",
    "service.idle": "Сервер долго ничего не слышал", "service.storage_full": "У сервера нет места для записи",
    "service.storage_busy": "База данных сервера занята, попробуйте чуть позже", "service.not_found": "Этого на сервере уже нет",
  },
  en: {
    model: "Model", drop: "Drop a recording here", another: "Another recording", dropMore: "or choose a file: WAV, MP3, M4A, OGG, video",
    mic: "Speak", micStop: "Stop", micMore: "words appear while you talk", more: "Settings",
    punctuate: "Punctuation and capitals", split: "Stereo: one speaker per channel",
    queue: "Recordings go into the server's queue: the page may be closed",
    hotwords: "Expected words", hotwordsHint: "договор, Ромашка:8 — comma-separated",
    key: "Access key", keyMore: "kept as long as this tab is open", enter: "Enter", keyGood: "The key is good",
    play: "Play", pause: "Pause", silent: "There is no sound: it was opened from a list", other: "Русский",
    connecting: "Connecting…", listening: "Listening", reading: "Reading the file…", recognising: "Recognising", done: "Done",
    sending: "Sending", queued: "It is in the queue", copy: "Copy", copied: "Copied",
    lost: "The connection was lost; what was said so far is kept", away: "The server stopped; what was said so far is kept",
    noMic: "No access to the microphone", noAudio: "The browser could not read this file", nothing: "No speech was heard",
    silence: "Speak…", speaker: "Speaker", secure: "The microphone needs https or localhost",
    input: "Recording or microphone", player: "Recording", wave: "Place in the recording", saves: "Save", transcript: "Transcript",
    progress: "How much is done", sure: "Model's doubts", microphone: "Microphone",
    jobs: "Queue", history: "History", recent: "Recent in this browser", search: "Search what was said",
    none: "Nothing yet", found0: "Nothing was found", next: "Show more", open: "Open", remove: "Delete",
    sure1: "Really delete?", forget: "Forget all", sureAll: "Really forget?", cancel: "Cancel", retry: "Retry",
    textless: "without text", closed: "The key does not open this", live: "live",
    status_queued: "waiting", status_running: "recognising", status_done: "done", status_failed: "failed",
    status_cancelled: "cancelled",
    keys: "Keys: space plays, ← → move by 2 seconds or by words, M is the microphone, / searches",
  },
};

const KEPT = "rechka.language";
let language = localStorage.getItem(KEPT);
if (!(language in WORDS)) language = navigator.language.startsWith("ru") ? "ru" : "en";

export const t = (name) => WORDS[language][name] ?? name;

/** What went wrong, in the page's language as far as it has words for it; else the server's own. */
export function trouble({ code, message, remedy }) {
  if (code && WORDS[language][code]) return t(code);
  return remedy ? `${message}; ${remedy}` : message;
}

export const when = (date) => date.toLocaleString(language, { dateStyle: "short", timeStyle: "short" });

export function applyLanguage(next) {
  if (next) {
    language = next;
    localStorage.setItem(KEPT, next);
  }
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  for (const element of document.querySelectorAll("[data-t-placeholder]")) element.placeholder = t(element.dataset.tPlaceholder);
}

export const otherLanguage = () => (language === "ru" ? "en" : "ru");
