from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def index():
    return "a shop"


def main():
    import os

    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))


if __name__ == "__main__":
    main()
