local function passed(make)
	local passes = 0
	for number = 1, 1000 do
		if publish(make(number)).outcome == "pass" then
			passes += 1
		end
	end
	return passes
end

test("a tenth of the ids passes", function()
	local ids = passed(function(number)
		return { correlation_id = `trace-{number}` }
	end)
	expect(ids > 60 and ids < 140):equals(true)
end)

test("a tenth of the messages without ids passes", function()
	expect(passed(function()
		return {}
	end)):equals(100)
end)

test("what belongs together is kept together", function()
	for number = 1, 50 do
		local first = publish { correlation_id = `trace-{number}`, routing_key = "a" }
		local second = publish { correlation_id = `trace-{number}`, routing_key = "b" }
		expect(second.outcome):equals(first.outcome)
	end
end)

test("what passes says how much it stands for", function()
	for _ = 1, 100 do
		local out = publish {}
		if out.outcome == "pass" then
			expect(out.headers["x-sample-percent"]):equals(10)
		end
	end
end)

test("some always pass", function()
	expect(passed(function()
		return { headers = { ["x-keep"] = true } }
	end)):equals(1000)
end)
