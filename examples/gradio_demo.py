"""A page with a microphone before any model: speak or drop a file, read the text.

    pip install gradio "rechka[whisper]"
    python examples/gradio_demo.py [MODEL]

MODEL is a name from ``rechka models list`` or a folder, such as one that ``rechka finetune`` made; without it the best
model on disk is taken. Gradio is no dependency of rechka; written for its versions 5 and 6. For more than that see
``rechka serve``, which has a page of its own.
"""

import sys

import rechka


def build(model=None):
    """The page, not yet shown."""
    import gradio

    asr = rechka.load(model)

    def hear(path):
        if path is None:
            return ""
        try:
            return asr.transcribe(path).text
        except rechka.RechkaError as error:
            raise gradio.Error(str(error)) from None

    return gradio.Interface(
        fn=hear,
        inputs=gradio.Audio(sources=["microphone", "upload"], type="filepath", label="Речь"),
        outputs=gradio.Textbox(label="Текст"),
        title=f"rechka: {asr.name}",
        description="Скажите что-нибудь или выберите запись.",
        flagging_mode="never",
    )


if __name__ == "__main__":
    build(*sys.argv[1:2]).launch()
