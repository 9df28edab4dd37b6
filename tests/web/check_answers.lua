-- For wrk: asks distinct sentences, and checks every answer against the one that is expected.
--   wrk … -s tests/web/check_answers.lua URL -- FILE
-- FILE holds lines of: url-encoded sentence, tab, expected body. The server gives X-Request-ID back.

local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  sentences, expected = {}, {}
  for line in io.lines(args[1]) do
    local sentence, body = line:match("^(.-)\t(.*)$")
    table.insert(sentences, sentence)
    table.insert(expected, body)
  end
  turn = number * 37
  right, wrong, example = 0, 0, ""
end

function request()
  turn = turn + 1
  local i = turn % #sentences + 1
  local headers = {
    ["Content-Type"] = "application/x-www-form-urlencoded",
    ["X-Request-ID"] = tostring(i),
  }
  return wrk.format("POST", nil, headers, "s=" .. sentences[i])
end

function response(status, headers, body)
  local i = tonumber(headers["X-Request-ID"] or headers["X-Request-Id"] or "0")
  if status == 200 and expected[i] and body:gsub("%s+$", "") == expected[i] then
    right = right + 1
  else
    wrong = wrong + 1
    example = tostring(status) .. " " .. tostring(i) .. " " .. body:sub(1, 80)
  end
end

function done(summary, latency, requests)
  local right, wrong, example = 0, 0, ""
  for _, thread in ipairs(threads) do
    right = right + thread:get("right")
    wrong = wrong + thread:get("wrong")
    if thread:get("wrong") > 0 then example = thread:get("example") end
  end
  local errors = summary.errors
  io.write(string.format("right %d wrong %d failed %d\n", right, wrong,
    errors.connect + errors.read + errors.write + errors.timeout))
  if wrong > 0 then io.write("example " .. example .. "\n") end
end
