// The page's words in both languages. Elements with data-t get theirs; t("name") is for scripts.

const WORDS = {
  ru: {
    model: "Модель", drop: "Перетащите запись сюда", dropMore: "или нажмите, чтобы выбрать файл: WAV, MP3, M4A, OGG, видео",
    mic: "Говорить", micStop: "Остановить", micMore: "слова появляются по ходу речи", more: "Настройки",
    hotwords: "Ожидаемые слова через запятую", split: "Стерео: у каждого канала свой говорящий", key: "Ключ доступа, если сервер его просит",
    play: "Слушать", pause: "Пауза", past: "Недавнее в этом браузере", forget: "Забыть всё", other: "English",
    connecting: "Соединяюсь…", listening: "Слушаю", reading: "Читаю файл…", recognising: "Распознаю", done: "Готово",
    lost: "Связь прервалась", noMic: "Нет доступа к микрофону", noAudio: "Браузер не смог прочитать этот файл",
    nothing: "Речи не слышно", silence: "Говорите…", speaker: "Говорящий", secure: "Микрофон работает только по https или на localhost",
  },
  en: {
    model: "Model", drop: "Drop a recording here", dropMore: "or click to choose a file: WAV, MP3, M4A, OGG, video",
    mic: "Speak", micStop: "Stop", micMore: "words appear while you talk", more: "Settings",
    hotwords: "Expected words, comma-separated", split: "Stereo: one speaker per channel", key: "Access key, if the server asks for one",
    play: "Play", pause: "Pause", past: "Recent in this browser", forget: "Forget all", other: "Русский",
    connecting: "Connecting…", listening: "Listening", reading: "Reading the file…", recognising: "Recognising", done: "Done",
    lost: "The connection was lost", noMic: "No access to the microphone", noAudio: "The browser could not read this file",
    nothing: "No speech was heard", silence: "Speak…", speaker: "Speaker", secure: "The microphone needs https or localhost",
  },
};

let language = localStorage.getItem("rechka.language") || (navigator.language.startsWith("ru") ? "ru" : "en");

export const t = (name) => WORDS[language][name] ?? name;

export function applyLanguage(next) {
  if (next) {
    language = next;
    localStorage.setItem("rechka.language", next);
  }
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
}

export const otherLanguage = () => (language === "ru" ? "en" : "ru");
