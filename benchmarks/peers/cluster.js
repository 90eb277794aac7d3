// The same answer for PM2's cluster mode, and the same care at the end: nothing begun is cut off.
const http = require("node:http");

let stopping = false;
const server = http.createServer((request, response) => {
  const headers = { "Content-Type": "text/plain", "Content-Length": 6 };
  if (stopping) headers.Connection = "close";
  response.writeHead(200, headers);
  response.end("hello\n");
});

process.on("SIGINT", () => {
  stopping = true;
  server.close(() => process.exit(0));
  setTimeout(() => server.closeIdleConnections(), 1000);
});

server.listen({ port: Number(process.env.PORT), host: "127.0.0.1", backlog: 4096 }, () => {
  if (process.send) process.send("ready");
});
