test("a message that comes back too often goes to the dead letters", function()
	expect(deliver { message_id = "m" }):passes()
	for _ = 2, 5 do
		expect(deliver { message_id = "m", redelivered = true }):passes()
	end
	expect(deliver { message_id = "m", redelivered = true }):dead_letters("handed out 5 times")
	-- It is counted anew.
	expect(deliver { message_id = "m", redelivered = true }):passes()
end)

test("each queue and each message counts for itself", function()
	for number = 1, 20 do
		expect(deliver { message_id = `m{number}`, redelivered = true }):passes()
		expect(deliver { message_id = "m", queue = `q{number}`, redelivered = true }):passes()
	end
end)

test("a count is forgotten", function()
	for _ = 1, 20 do
		expect(deliver { message_id = "m", redelivered = true }):passes()
		advance(1800)
	end
end)

test("messages without an id, and long names, pass", function()
	for _ = 1, 10 do
		expect(deliver { redelivered = true }):passes()
	end
	local long = string.rep("x", 255)
	expect(deliver { message_id = long, queue = long, redelivered = true }):passes()
end)

test("what is published again and again is diverted", function()
	expect(publish { headers = { ["x-retries"] = 10 } }):passes()
	expect(publish { headers = { ["x-retries"] = 11 } }):dead_letters("tried 11 times")
	expect(publish { headers = { ["x-retries"] = "many" } }):passes()
	local died = { { queue = "a", count = 8 }, { queue = "b", count = 4 } }
	expect(publish { headers = { ["x-death"] = died } }):dead_letters("tried 12 times")
end)
