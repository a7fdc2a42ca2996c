// Search from the file system: browsers start no worker for a page of file://, so run its script in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inside = frame.contentWindow
      // What the script posts goes to those who listen here, and what is posted here goes to the script.
      this.inside.postMessage = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (this.onmessage) this.onmessage(event)
      }
      this.ready = new Promise((done, failed) => {
        const script = frame.contentDocument.createElement("script")
        script.src = url
        script.onload = done
        script.onerror = failed
        frame.contentDocument.body.append(script)
      })
    }

    postMessage(data) {
      this.ready.then(() => {
        const event = new this.inside.MessageEvent("message", { data })
        this.inside.dispatchEvent(event)
      })
    }

    terminate() {
      this.inside.frameElement.remove()
    }
  }
}
