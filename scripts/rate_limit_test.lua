local function publish_many(user, count)
	for _ = 1, count do
		expect(publish { user = user }):passes()
	end
end

test("what is above the limit is rejected until the window ends", function()
	publish_many("alice", 1000)
	expect(publish { user = "alice" }):rejects("user 'alice' publishes more than 1000 messages in 1 s")
	advance(0.5)
	expect(publish { user = "alice" }):rejects()
	advance(0.6)
	publish_many("alice", 10)
end)

test("each user has a limit of its own", function()
	publish_many("alice", 1000)
	expect(publish { user = "bob" }):passes()
end)

test("some are not limited", function()
	publish_many("monitoring", 1500)
end)
