-- For wrk: asks questions that were prepared beforehand, and checks every answer.
--   wrk … -t T -s tests/bench/web.lua URL -- FILE T
-- FILE holds lines of: body of a request, tab, body of its answer; both in hexadecimal.
--
-- Each thread asks every T-th question, so no two ever ask the same. An answer is right if it is
-- that of a question that this thread has open, which it then has no more. A thread with a single
-- connection so holds each answer against the very question of its connection.

local threads = {}
local requests, answers, open = {}, {}, {}
local count, turn = 0, 0

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  file, step = args[1], tonumber(args[2])
  right, wrong, example = 0, 0, ""
end

local function decoded(hex)
  return (hex:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

-- Not in init: that runs for one thread after the other, while the first ones already ask.
local function prepare()
  local line = 0
  for text in io.lines(file) do
    if line % step == number then
      local body, answer = text:match("^(%x*)\t(%x*)$")
      count = count + 1
      requests[count] = wrk.format("POST", nil, nil, decoded(body))
      answers[count] = decoded(answer)
    end
    line = line + 1
  end
end

local function ask()
  turn = turn % count + 1
  local answer = answers[turn]
  open[answer] = (open[answer] or 0) + 1
  return requests[turn]
end

function request()
  prepare()
  request = ask
  -- wrk itself looks at one request of the first thread, and does not send it.
  if number == 0 then
    return requests[count]
  end
  return ask()
end

function response(status, headers, body)
  local waiting = open[body]
  if status == 200 and waiting and waiting > 0 then
    open[body] = waiting - 1
    right = right + 1
  else
    wrong = wrong + 1
    if wrong == 1 then example = status .. " " .. body:sub(1, 300) end
  end
end

function done(summary, latency, requests)
  local right, wrong, example = 0, 0, ""
  for _, thread in ipairs(threads) do
    right = right + thread:get("right")
    wrong = wrong + thread:get("wrong")
    if example == "" then example = thread:get("example") end
  end
  local errors = summary.errors
  io.write(string.format("right %d wrong %d failed %d us %d %d %d %d\n", right, wrong,
    errors.connect + errors.read + errors.write + errors.timeout, summary.duration,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
  if example ~= "" then io.write("example " .. example:gsub("%s+", " ") .. "\n") end
end
